"""A small OpenAI-compatible server of SmolLM2-135M-Instruct, for tests: chat completions on loopback.

    python smollm_server.py FOLDER

The folder holds the model as GGUF. The port is printed when the model is there. Of a request it honours `messages`,
`temperature` (0 unless given), `max_tokens` and a `response_format` with a JSON schema of the form {name: [strings]}:
the punctuation of such an answer is set, what stands between the quotes are one or two words of the model's choice.
Whether they make sense, or differ, is up to the model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
MAX_TOKENS = 60
STRING_TOKENS = 2


class Writer:
    """Continues one conversation."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str, temperature: float) -> None:
        self._model, self._tokenizer, self._temperature = model, tokenizer, temperature
        self._cache = None
        self._ids: list[int] = []
        self.prompt_tokens = self._feed(prompt)
        self.tokens = 0

    def put(self, text: str) -> None:
        """Make a text, as it is, part of the answer."""
        self.tokens += self._feed(text)

    def next(self, allowed: Tensor | None = None) -> int:
        """Draw the next token, not yet a part of the answer."""
        logits = self._logits if allowed is None else self._logits.masked_fill(~allowed, -torch.inf)
        if self._temperature == 0:
            return int(logits.argmax())
        return int(torch.multinomial((logits / self._temperature).softmax(0), 1))

    def take(self, token: int) -> None:
        """Make a token part of the answer."""
        self._run([token])
        self.tokens += 1

    def _feed(self, text: str) -> int:
        ids = self._tokenizer(text, add_special_tokens=False).input_ids
        self._run(ids)
        return len(ids)

    @torch.inference_mode()
    def _run(self, ids: list[int]) -> None:
        out = self._model(torch.tensor([ids]), past_key_values=self._cache, use_cache=True)
        self._cache, self._logits = out.past_key_values, out.logits[0, -1].float()


class Model:
    """The model, its tokenizer, and which tokens are words that may begin a string, or follow in it."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=MODEL)
        self._model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=MODEL).eval()
        texts = self._tokenizer.batch_decode([[i] for i in range(self._model.config.vocab_size)])
        self._inside = torch.tensor([bool(re.fullmatch(" [a-z]{3,}", text)) for text in texts])
        self._first = torch.tensor([bool(re.fullmatch("[a-z]{3,}", text)) for text in texts])
        self._quote = self._tokenizer('"', add_special_tokens=False).input_ids[0]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a chat completion request."""
        turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in request["messages"]]
        prompt = "".join([*turns, "<|im_start|>assistant\n"])
        writer = Writer(self._model, self._tokenizer, prompt, request.get("temperature", 0))
        form = request.get("response_format")
        if form is None:
            text, finish = self._free(writer, request.get("max_tokens", MAX_TOKENS))
        else:
            text, finish = "".join(self._strings(writer, form["json_schema"]["schema"])), "stop"
        usage = {"prompt_tokens": writer.prompt_tokens, "completion_tokens": writer.tokens}
        message = {"role": "assistant", "content": text}
        return {
            "object": "chat.completion",
            "model": request["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }

    def _free(self, writer: Writer, limit: int) -> tuple[str, str]:
        ids: list[int] = []
        while len(ids) < limit:
            token = writer.next()
            if token == self._tokenizer.eos_token_id:
                return self._tokenizer.decode(ids), "stop"
            writer.take(token)
            ids.append(token)
        return self._tokenizer.decode(ids), "length"

    def _strings(self, writer: Writer, schema: dict[str, Any]) -> Iterator[str]:
        ((name, items),) = schema["properties"].items()
        for index in range(items["maxItems"]):
            opening = '", "' if index else f'{{"{name}": ["'
            writer.put(opening)
            ids: list[int] = []
            while len(ids) < STRING_TOKENS:
                allowed = self._inside.clone() if ids else self._first.clone()
                allowed[self._quote] = bool(ids)
                token = writer.next(allowed)
                if token == self._quote:
                    break
                writer.take(token)
                ids.append(token)
            yield opening + self._tokenizer.decode(ids)
        yield '"]}'


def main(folder: Path) -> None:
    """Serve until killed."""
    model = Model(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(model.answer(request)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    main(Path(sys.argv[1]))
