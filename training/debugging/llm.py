"""A language model behind an OpenAI-compatible endpoint, and the transcript of what it answered."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from saaa.annotations.content import clean
from saaa.errors import DataError, GeneratorFailed, OptionInvalid
from training.options import check

if TYPE_CHECKING:
    from openai import OpenAI

Messages = Sequence[Mapping[str, str]]
"""A conversation: of each message its "role" (user, assistant) and "content"."""


@dataclass(frozen=True, kw_only=True)
class LlmOptions:
    """Which language model, and how it is asked.

    Raises:
        OptionInvalid: an option is outside its range, or no URL or variable name.
    """

    model: str
    """What the endpoint calls the model."""
    base_url: str | None = None
    """Of any OpenAI-compatible endpoint, such as http://localhost:11434/v1; default: nothing is asked, all answers come
    from the transcript."""
    key_variable: str | None = None
    """The environment variable that holds the endpoint's key; default: it gets none."""
    timeout: float = 60
    """Seconds without a sign of the endpoint before the request is sent again."""
    retries: int = 5
    """How often a request is sent again, later each time, while the endpoint is busy, broken or out of reach."""
    temperature: float | None = None
    """Of the model's answers; default: the endpoint's own. Not every model takes one."""
    max_tokens: int | None = None
    """Most tokens of an answer; default: the endpoint's own."""

    def __post_init__(self) -> None:
        check("timeout", self.timeout, above=0, at_most=3600)
        check("retries", self.retries, at_least=0, at_most=20)
        check("temperature", self.temperature, at_least=0, at_most=2)
        check("max_tokens", self.max_tokens, at_least=1)
        if not self.model.strip():
            raise OptionInvalid("The model needs a name, as the endpoint calls it.", field="model")
        # Neither message shows the value: it may hold a key.
        if self.base_url is not None and not _plain_url(self.base_url):
            raise OptionInvalid(
                "base_url must be like https://host/v1, without user, password or query: a key comes from the "
                "environment (key_variable).",
                field="base_url",
            )
        if self.key_variable is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.key_variable, re.ASCII):
            raise OptionInvalid(
                "key_variable must be the name of an environment variable that holds the key, not the key.",
                field="key_variable",
            )


class Transcript:
    """What was answered to which request: a JSON line each, on disk before anybody sees the answer."""

    def __init__(self, path: Path) -> None:
        """Read what is there; a line that was cut off is no answer, its request will be sent again.

        Raises:
            DataError: the file cannot be read.
        """
        self._path = path
        self._answers: dict[str, str] = {}
        try:
            content = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise DataError(f"The transcript {path} cannot be read: {error.strerror or error}") from error
        self._whole = not content or content.endswith(b"\n")
        for line in content.splitlines():
            try:
                record = json.loads(line)
                request, answer = record["request"], record["answer"]
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
            if isinstance(answer, str):
                self._answers[_key(request)] = answer

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, request: Mapping[str, Any]) -> str | None:
        """The answer that this very request got."""
        return self._answers.get(_key(request))

    def add(self, request: Mapping[str, Any], answer: str, **more: Any) -> None:
        """Keep an answer and what else is known of it.

        Raises:
            DataError: it cannot be written.
        """
        line = json.dumps({"request": request, "answer": answer, **more}) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line if self._whole else "\n" + line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"Cannot write {self._path}: {error.strerror or error}") from error
        self._whole = True
        self._answers[_key(request)] = answer


class Llm:
    """Asks a language model; what is in the transcript is not asked again."""

    def __init__(self, options: LlmOptions, transcript: Transcript) -> None:
        """Read the key; nothing is sent yet.

        Raises:
            OptionInvalid: the package openai or the key's variable is missing.
        """
        self._options = options
        self._transcript = transcript
        self._key = _read_key(options.key_variable)
        self._client = None if options.base_url is None else self._connect(options.base_url)

    def ask(self, messages: Messages, schema: Mapping[str, Any] | None = None) -> str:
        """Give the model's answer to a conversation: the recorded one, or a new one, which is then recorded.

        Args:
            messages: the conversation, the user's message last.
            schema: the JSON schema that the endpoint shall hold the model to; it is not checked here.

        Returns:
            The answer's text as it came, "" if it has none; the key, should it be in there, is left out.

        Raises:
            OptionInvalid: the answer is not recorded, and no endpoint is given.
            GeneratorFailed: the endpoint gave no answer, however often it was asked.
            DataError: the transcript cannot be written.
        """
        request = self._request(messages, schema)
        answer = self._transcript.get(request)
        if answer is None:
            began, time_ = time.monotonic(), datetime.now(UTC)
            answer, finish, usage = _read_completion(self._send(request), self._where())
            self._transcript.add(
                request,
                answer,
                finish=finish,
                usage=usage,
                time=time_.isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - began, 3),
            )
        return answer

    def _request(self, messages: Messages, schema: Mapping[str, Any] | None) -> dict[str, Any]:
        """What is sent, only what is set: what one endpoint wants another refuses."""
        request: dict[str, Any] = {"model": self._options.model, "messages": [dict(message) for message in messages]}
        if self._options.temperature is not None:
            request["temperature"] = float(self._options.temperature)
        if self._options.max_tokens is not None:
            request["max_tokens"] = self._options.max_tokens
        if schema is not None:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        return request

    def _connect(self, base_url: str) -> OpenAI:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise OptionInvalid("Asking a language model needs the package openai; install saaa[generate].") from error
        # The client wants a key; servers that need none ignore it. Without one given it would take OPENAI_API_KEY, and
        # send it to whatever endpoint this is.
        return OpenAI(
            api_key=self._key or "none",
            base_url=base_url,
            timeout=self._options.timeout,
            max_retries=self._options.retries,
        )

    def _send(self, request: Mapping[str, Any]) -> str:
        """Give the body of the endpoint's answer."""
        if self._client is None:
            raise OptionInvalid(
                f"The transcript holds no answer of {self._options.model} to this request; give base_url, the endpoint "
                f"to ask. The request begins: {clean(request['messages'][0]['content'])[:100]}",
                field="base_url",
            )
        import openai

        where, tries = self._where(), self._options.retries + 1
        kept = "What it answered before is kept; start again to go on."
        try:
            return self._without_key(self._client.chat.completions.with_raw_response.create(**request).text)
        except openai.APITimeoutError as error:
            raise GeneratorFailed(
                f"{where} did not answer within {self._options.timeout:g} s, asked {tries} times. {kept}"
            ) from error
        except openai.APIConnectionError as error:
            reason = self._without_key(clean(str(error.__cause__ or error)))
            raise GeneratorFailed(f"{where} cannot be reached, asked {tries} times: {reason}. {kept}") from error
        except openai.APIStatusError as error:
            reason = self._without_key(clean(error.message))[:300]
            hint = _HINTS.get(error.status_code, "")
            raise GeneratorFailed(f"{where} answers {error.status_code}: {reason}. {hint}{kept}") from error
        except openai.OpenAIError as error:
            raise GeneratorFailed(f"{where} failed: {self._without_key(clean(str(error)))[:300]}. {kept}") from error

    def _where(self) -> str:
        return f"The language model {self._options.model} at {self._options.base_url}"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


_HINTS = {
    400: "Not every endpoint takes every option: leave out temperature, max_tokens or the schema (--no_constrain). ",
    401: "Name the environment variable with its key as key_variable. ",
    403: "Name the environment variable with its key as key_variable. ",
    404: "Check base_url (it often ends in /v1) and the model's name. ",
    422: "Not every endpoint takes every option: leave out temperature, max_tokens or the schema (--no_constrain). ",
}


def _read_completion(body: str, where: str) -> tuple[str, str | None, dict[str, Any] | None]:
    """The answer's text, why it ended and what it cost, of a chat completion."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise GeneratorFailed(
            f"{where} answers with something that is no chat completion: {clean(body[:1000])[:200]!r}. Check base_url."
        ) from error
    usage, finish = completion.get("usage"), choice.get("finish_reason")
    return text, finish if isinstance(finish, str) else None, usage if isinstance(usage, dict) else None


def _read_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise OptionInvalid(
            f"The environment variable {variable}, which shall hold the endpoint's key, "
            f"{'holds no key: it has characters no key can have' if key else 'is not set'}.",
            field="key_variable",
        )
    return key


def _plain_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and not (url.query or "@" in url.netloc)
    except ValueError:
        return False


def _key(request: Any) -> str:
    """The same for equal requests."""
    return sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
