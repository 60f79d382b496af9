"""What the tests of the page measure in the browser."""

from typing import Any

from selenium.webdriver import Chrome

# Every text that can be seen, with its colour, the colours below it, and whether WCAG calls it large.
_TEXTS = r"""
const parse = (colour) => {
  const parts = colour.match(/[\d.]+/g).map(Number);
  return [parts[0], parts[1], parts[2], parts.length > 3 ? parts[3] : 1];
};
const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
const ground = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, below), matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255]);
};
const luminance = (colour) => {
  const [r, g, b] = colour.map((value) => value / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ratio = (a, b) => {
  const [light, dark] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (light + 0.05) / (dark + 0.05);
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode()); ) {
  const element = node.parentElement;
  if (!node.data.trim() || !element.checkVisibility() || element.closest(".hidden, .skip, noscript")) continue;
  const style = getComputedStyle(element);
  const below = ground(element);
  const size = parseFloat(style.fontSize);
  found.push({
    text: node.data.trim().slice(0, 40), where: `${element.tagName}.${element.className}`,
    ratio: ratio(over(parse(style.color), below), below), large: size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700),
  });
}
for (const input of document.querySelectorAll("input")) {
  if (!input.checkVisibility()) continue;
  const below = ground(input);
  found.push({ text: input.value, where: "INPUT", ratio: ratio(parse(getComputedStyle(input).color).slice(0, 3), below), large: false });
}
return found;
"""


def faint(page: Chrome) -> tuple[int, list[str]]:
    """How many texts there are, and those whose contrast is less than WCAG's AA asks: 4.5 to 1, or 3 where large."""
    texts: list[dict[str, Any]] = page.execute_script(_TEXTS)
    bad = [t for t in texts if t["ratio"] < (3 if t["large"] else 4.5)]
    return len(texts), [f"{t['where']} {t['text']!r} {t['ratio']:.2f}" for t in bad]


def nameless(page: Chrome) -> list[str]:
    """Roles of what can be operated but has no name for those who do not see it."""
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    operated = {"button", "link", "textbox", "tab", "searchbox"}
    return [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in operated
        and not node.get("name", {}).get("value", "").strip()
    ]


def too_wide(page: Chrome) -> int:
    """Pixels by which the page is wider than its window."""
    wide: int = page.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide
