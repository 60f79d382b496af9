// The page's own words, English and Portuguese. Text of the catalogue is never translated.

const WORDS = {
  en: {
    skip: "Skip to the question",
    language: "Language",
    views: "Views",
    heading: "Ask this catalogue",
    ask: "Ask",
    stop: "Stop",
    keys: "/ goes to the question, Enter asks, Esc stops. Arrow keys go through the products.",
    tab_answer: "Answer",
    tab_compare: "Compare",
    empty: "Name a product: its whole title, a part of it, or as you remember it. The answer is in the catalogue's own words.",
    about: (name, count) => `${name} · ${count} products`,
    asking: "Looking for the product …",
    writing: "Writing …",
    done: "The answer is there.",
    stopped: "Stopped. What was written stands below; it was not checked against its sources.",
    sources: "Sources",
    candidates: "Products that may be meant",
    near: "Near products",
    fitting: "Products that fit",
    near_note: "None of these was sure enough to be taken for an answer. Choose one to ask for it.",
    fitting_note: "Choose the one you mean.",
    sources_note: "Coloured parts of the answer stand word for word in the product with the same number.",
    none_title: "Not in this catalogue",
    several_title: "Several products fit",
    cited: "the answer's source",
    choose: "Ask for this one",
    score: "score",
    exact: "exact title",
    words: "words",
    similarity: "similarity",
    words_help: "share of the question's words that title or description have, rare ones weighing more",
    similarity_help: "cosine similarity of the question and the title",
    score_help: "agreement of title and question, from 0 to 1",
    from_source: (number, title) => `from source ${number}, ${title}`,
    part_of_answer: "shown in the answer",
    no_source: "without source",
    confidence: "Confidence",
    confidence_help: "calibrated probability that this is the product asked for",
    grounded: "Copied",
    grounded_help: "share of the answer that stands word for word in a source",
    time: "Time",
    stages: { retrieve: "search", load: "load models", generate: "write", queue: "wait", wait: "wait", total: "total" },
    other_stages: "other",
    link: "Link to this question",
    copied_link: "Copied",
    legend_none: "stands in no product that was found",
    again: "Try again",
    seconds: "s",
    gone_title: "The server does not answer",
    gone: "Is it still running? It is started with: ragqa serve INDEX",
    broken_title: "The answer broke off",
    broken: "The connection ended before the answer was whole. What came stands below; ask again for the rest.",
    busy_title: "The server is busy",
    busy: "It works on as many questions as it can, or is stopping.",
    often_title: "Too many questions in a short time",
    often: "The server takes only so many of one visitor.",
    wait: (seconds) => `Try again in ${seconds} s.`,
    wait_some: "Try again in a moment.",
    key_title: "This server wants a key",
    key: "Enter the key that the server was started with. It is kept in this tab until it is closed.",
    key_wrong: "That key was not accepted.",
    key_label: "Key",
    key_send: "Use this key",
    refused_title: "The server does not take this",
    failed_title: "The server failed",
    failed: "Its log says more.",
    question_empty: "Write a question first.",
    compare_lead: "One question, every way of answering that the benchmark compares. Coloured parts stand word for word in a product that the search found; dotted ones in none.",
    comparing: "Every way is asked in turn; models that write take some seconds …",
    compared: "All ways have answered.",
    no_product: "names no source",
    arm_source: "Source",
    arm_seconds: "Time",
    arm_f1: "F1",
    arm_f1_help: "agreement in words with the description of the product whose title the question quotes",
    arm_exact: "word for word",
    missing_title: "More ways to compare",
    missing: "They are shown once the server has their adapters:",
    compare_off: "This server was started without it. Each further way is an option:",
    arms: {},
  },
  pt: {
    skip: "Ir para a pergunta",
    language: "Idioma",
    views: "Vistas",
    heading: "Pergunte a este catálogo",
    ask: "Perguntar",
    stop: "Parar",
    keys: "/ leva à pergunta, Enter pergunta, Esc para. As setas percorrem os produtos.",
    tab_answer: "Resposta",
    tab_compare: "Comparar",
    empty: "Diga o nome de um produto: o título inteiro, parte dele, ou como você se lembra. A resposta vem nas palavras do próprio catálogo.",
    about: (name, count) => `${name} · ${count} produtos`,
    asking: "Procurando o produto …",
    writing: "Escrevendo …",
    done: "A resposta está pronta.",
    stopped: "Interrompido. O que foi escrito está abaixo; não foi conferido com as fontes.",
    sources: "Fontes",
    candidates: "Produtos possíveis",
    near: "Produtos próximos",
    fitting: "Produtos que correspondem",
    near_note: "Nenhum deles era certo o bastante para ser a resposta. Escolha um para perguntar por ele.",
    fitting_note: "Escolha o que você procura.",
    sources_note: "As partes coloridas da resposta estão, palavra por palavra, no produto de mesmo número.",
    none_title: "Não está neste catálogo",
    several_title: "Vários produtos correspondem",
    cited: "fonte da resposta",
    choose: "Perguntar por este",
    score: "nota",
    exact: "título exato",
    words: "palavras",
    similarity: "semelhança",
    words_help: "parte das palavras da pergunta que o título ou a descrição têm; as raras pesam mais",
    similarity_help: "semelhança de cosseno entre a pergunta e o título",
    score_help: "concordância entre título e pergunta, de 0 a 1",
    from_source: (number, title) => `da fonte ${number}, ${title}`,
    part_of_answer: "mostrada na resposta",
    no_source: "sem fonte",
    confidence: "Confiança",
    confidence_help: "probabilidade calibrada de ser este o produto pedido",
    grounded: "Copiado",
    grounded_help: "parte da resposta que está palavra por palavra numa fonte",
    time: "Tempo",
    stages: { retrieve: "busca", load: "carregar modelos", generate: "escrita", queue: "espera", wait: "espera", total: "total" },
    other_stages: "outros",
    link: "Link para esta pergunta",
    copied_link: "Copiado",
    legend_none: "não está em nenhum produto encontrado",
    again: "Tentar de novo",
    seconds: "s",
    gone_title: "O servidor não responde",
    gone: "Ele ainda está em execução? Inicia-se com: ragqa serve INDEX",
    broken_title: "A resposta foi interrompida",
    broken: "A conexão terminou antes que a resposta estivesse completa. O que chegou está abaixo; pergunte de novo.",
    busy_title: "O servidor está ocupado",
    busy: "Ele já responde a tantas perguntas quantas pode, ou está parando.",
    often_title: "Perguntas demais em pouco tempo",
    often: "O servidor aceita um número limitado de cada visitante.",
    wait: (seconds) => `Tente de novo em ${seconds} s.`,
    wait_some: "Tente de novo em instantes.",
    key_title: "Este servidor pede uma chave",
    key: "Digite a chave com que o servidor foi iniciado. Ela fica nesta aba até que seja fechada.",
    key_wrong: "Essa chave não foi aceita.",
    key_label: "Chave",
    key_send: "Usar esta chave",
    refused_title: "O servidor não aceita isto",
    failed_title: "O servidor falhou",
    failed: "O registro dele diz mais.",
    question_empty: "Escreva uma pergunta primeiro.",
    compare_lead: "Uma pergunta, todas as formas de responder que o benchmark compara. As partes coloridas estão palavra por palavra num produto que a busca achou; as pontilhadas, em nenhum.",
    comparing: "Cada forma é perguntada por vez; modelos que escrevem levam alguns segundos …",
    compared: "Todas as formas responderam.",
    no_product: "não nomeia fonte",
    arm_source: "Fonte",
    arm_seconds: "Tempo",
    arm_f1: "F1",
    arm_f1_help: "concordância de palavras com a descrição do produto cujo título a pergunta cita",
    arm_exact: "palavra por palavra",
    missing_title: "Mais formas para comparar",
    missing: "Aparecem quando o servidor tem os adaptadores:",
    compare_off: "Este servidor foi iniciado sem ela. Cada forma a mais é uma opção:",
    arms: {
      copy: ["buscar e devolver", "a descrição do primeiro produto encontrado; sem gerador"],
      base: ["modelo base", "o gerador como é, só com a pergunta"],
      base_context: ["modelo base + busca", "o gerador como é, com os primeiros produtos encontrados; escreve livremente"],
      plain: ["ajuste simples", "ajustado em pergunta -> descrição, só com a pergunta"],
      retrieval_context: ["ajustado com busca + busca", "ajustado com produtos encontrados; escolhe a fonte, cujas palavras são a resposta"],
    },
  },
};

const KEPT = "ragqa-language";

// What was chosen before, else the first language of the browser that there is.
export function preferred() {
  let kept = null;
  try {
    kept = localStorage.getItem(KEPT);
  } catch {
    // Storage may be forbidden; the browser's language remains.
  }
  return WORDS[kept] ? kept : (navigator.languages ?? ["en"]).map((one) => one.slice(0, 2)).find((one) => WORDS[one]) ?? "en";
}

let language = preferred();

export const current = () => language;

// The words under a name, with what a function of them wants.
export function say(name, ...values) {
  const found = WORDS[language][name];
  return typeof found === "function" ? found(...values) : found;
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

export function percent(value) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 }).format(value);
}

export function seconds(value) {
  return value < 1 ? `${number(value * 1000, value < 0.01 ? 1 : 0)} ms` : `${number(value, 1)} s`;
}

export function choose(chosen) {
  language = chosen;
  try {
    localStorage.setItem(KEPT, chosen);
  } catch {
    // It then lasts as long as the page.
  }
}

// Put the words where the page names them.
export function fill(root) {
  document.documentElement.lang = language;
  for (const element of root.querySelectorAll("[data-words]")) element.textContent = say(element.dataset.words);
  for (const element of root.querySelectorAll("[data-words-label]")) {
    element.setAttribute("aria-label", say(element.dataset.wordsLabel));
  }
}
