"""What the service allows: how much at once, how long, how large, how often, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ragqa.settings import Settings, at_least


@dataclass(frozen=True, slots=True)
class ServiceSettings(Settings):
    """Limits of the service.

    Attributes:
        max_batch: how many questions are searched for, or answered, together at most.
        max_queue: how many questions may be waiting or in work; more are refused with 503.
        max_wait: seconds; a question that would wait longer, at the rate measured, is refused with 503.
        max_streams: how many streamed answers are written in turns; further ones wait.
        timeout: seconds from a request's arrival to its answer; then 504, and what has not begun is dropped.
        drain: seconds that accepted requests get to finish after SIGTERM.
        max_body: bytes of a request's body.
        max_questions: questions in one request.
        header_timeout, body_timeout: seconds for the head and the body of a request to arrive.
        send_timeout: seconds that a client may take nothing of its response.
        keep_alive: seconds that an idle connection is kept.
        max_connections: open connections.
        heartbeat: seconds between comments in a stream that has nothing to say.
        rate: questions a minute for each key, or each address where there are no keys; 0 is without limit.
        burst: questions that may come at once within `rate`.
        cors_origins: origins whose pages may call the service.
        log_questions: write questions to the log.
        watch: seconds between looks for a new generation of the index.
    """

    max_batch: int = 16
    max_queue: int = 256
    max_wait: float = 3.0
    max_streams: int = 8
    timeout: float = 30.0
    drain: float = 30.0
    max_body: int = 262_144
    max_questions: int = 64
    header_timeout: float = 10.0
    body_timeout: float = 10.0
    send_timeout: float = 20.0
    keep_alive: int = 15
    max_connections: int = 1000
    heartbeat: float = 10.0
    rate: float = 0.0
    burst: int = 20
    cors_origins: tuple[str, ...] = ()
    log_questions: bool = False
    watch: float = 1.0

    def _problems(self) -> list[str]:
        whole = [field.name for field in fields(self) if field.type == "int"]
        problems = at_least(self, dict.fromkeys(whole, 1))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and (
                isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf")
            ):
                problems.append(f"{field.name} must be a number of at least 0, not {value!r}")
        if not self.timeout:
            problems.append("timeout must be above 0")
        return problems
