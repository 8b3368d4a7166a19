"""A process that reads replies: questions on standard input, answers on standard output.

It ends when its input does, in the middle of a reply too, and when the time of a question is over.
"""

import os
import resource
import signal
import sys
import threading
from queue import SimpleQueue

from dspex.executions.native.answers import answer
from dspex.providers.reply_reader.frames import ANSWER, QUESTION

# Serving comes first.
_NICE = 10
# A reply that needs more is a hostile one: the process ends, and only its own request fails.
_MEMORY_BYTES = 2 * 1024**3


def main() -> None:
    """Ends by `os._exit` or a signal only."""
    # Those for the whole group are meant for the server, which closes our input when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    questions: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    while True:
        limit_s, asked = questions.get()
        # Without a handler the alarm kills, whatever code is running.
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        answered = answer(asked)
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(ANSWER.pack(len(answered)) + answered)
        sys.stdout.buffer.flush()


def _listen(questions: "SimpleQueue[tuple[float, bytes]]") -> None:
    source = sys.stdin.buffer
    while head := source.read(QUESTION.size):
        length, limit_s = QUESTION.unpack(head)
        questions.put((limit_s, source.read(length)))
    os._exit(0)


if __name__ == "__main__":
    main()
