# SPDX-License-Identifier: Apache-2.0
"""The released code's reward server in its design: one blocking call after another.

For each sample of a request: a new OpenAI client, a list of the models, a completion of up to
4096 tokens, waited for; then the response to a process of its own through a queue, and its
result back through another; only then the next sample. Lighter than the original where that
has no part in the design: a bare HTTP server instead of Flask, and a regular expression in
the process instead of symbolic mathematics.
"""

import json
import multiprocessing
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai

from r1reward_trainer.method.judge_prompt import (
    ANSWER_ATTEMPTS,
    released_judgement,
    released_prompt,
)
from r1reward_trainer.method.reward import JudgeOutcome, consistency_value, total_reward
from r1reward_trainer.method.verdict import format_ok, released_verdict


def verify(samples: Any, results: Any) -> None:
    """The process that compares verdicts with gold ones."""
    while True:
        response, gold = samples.get()
        results.put(float(released_verdict(response) == gold))


def judged(url: str, response: str) -> int:
    """The judge's word: +1, -1 or 0."""
    for _ in range(ANSWER_ATTEMPTS):
        client = openai.OpenAI(api_key="EMPTY", base_url=url)
        model = client.models.list().data[0].id
        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": released_prompt(response)}],
            max_tokens=4096,
            temperature=0.1,
            stream=False,
        )
        outcome = released_judgement(answer.choices[0].message.content or "")
        if outcome is not JudgeOutcome.UNKNOWN:
            return consistency_value(outcome, "Signed")
    return 0


def serve(url: str) -> None:
    """Prints the port, then serves `POST /` of [[response, gold], …] until it is killed."""
    samples: Any = multiprocessing.Queue()
    results: Any = multiprocessing.Queue()
    multiprocessing.Process(target=verify, args=(samples, results), daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            rewards: list[float] = []
            for response, gold in json.loads(self.rfile.read(int(self.headers["content-length"]))):
                fmt = format_ok(response)
                consistency = judged(url, response)
                samples.put((response, gold))
                rewards.append(total_reward(results.get(), consistency, fmt))
            body = json.dumps({"rewards": rewards}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1])
