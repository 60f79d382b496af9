"""Serve an index over HTTP and call it: an answer, a stream of one, and OpenAI's protocol.

python examples/06_serve_and_call.py

Needs the extra `serve`: pip install -c constraints.txt -e ".[serve]"
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import httpx2

from ragqa import build_index

here = Path(__file__).resolve().parent
index = here.parent / "indexes" / "demo"
if not (index / "CURRENT").exists():
    build_index(here / "catalogue" / "trn.json", index)

# The same as: ragqa serve indexes/demo --port 8000
command = [sys.executable, "-m", "ragqa.serve", str(index), "--port", "0", "--quiet"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
    url = service.stdout.readline().strip()
    try:
        with httpx2.Client(base_url=url, timeout=60) as client:
            while client.get("/readyz").status_code != httpx2.codes.OK:  # the models are being loaded
                time.sleep(0.2)

            answer = client.post(
                "/v1/ask", json={"question": "What is the description of Lumen headlamp LT-350?"}
            ).json()
            print("A:", answer["text"])
            print(f"   from {answer['sources'][0]['title']}, confidence {answer['confidence']:.2f}")

            # Server-sent events: `piece` for each part of the text, then `answer` with everything.
            asked = {"question": "Qual é a descrição da rede de dormir Maracatu?", "stream": True}
            with client.stream("POST", "/v1/ask", json=asked) as response:
                event = ""
                for line in response.iter_lines():
                    name, _, value = line.partition(": ")
                    event = value if name == "event" else event
                    if name == "data":
                        print(f"{event}:", json.loads(value)["text"])

            # Any client of OpenAI's chat completions: base_url is URL/v1.
            messages = [{"role": "user", "content": "Do you have surfboards?"}]
            reply = client.post("/v1/chat/completions", json={"model": "ragqa", "messages": messages}).json()
            print("chat:", reply["choices"][0]["message"]["content"])
    finally:
        service.terminate()  # what was accepted is answered first
