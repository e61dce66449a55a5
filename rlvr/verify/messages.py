"""Our end of the pipe to a process that nobody may trust: whatever the other end does, it never blocks.

    a message: its bytes behind a head that counts them, as `multiprocessing.connection`, the other end, has it

Knows no verifier and no process.
"""

import os
import select
import struct
from multiprocessing.connection import Connection
from time import monotonic

HEAD = struct.Struct("!i")
LARGE_HEAD = struct.Struct("!iQ")  # -1, and a count that has no room in the other
LARGEST = 1 << 28  # bytes of a message that is taken
CHUNK = 1 << 16


class Closed(Exception):
    """The other end is."""


class Garbled(Exception):
    """Not a message, or one that is too large."""


class Messages:
    """Both ways. Half a message is none: a deadline holds until the whole of it has come."""

    def __init__(self, pipe: Connection):
        self.pipe = pipe
        os.set_blocking(pipe.fileno(), False)  # the other end's own flag is as it was
        self._incoming, self._outgoing = select.poll(), select.poll()  # Connection.poll makes a new one each time
        self._incoming.register(pipe, select.POLLIN)
        self._outgoing.register(pipe, select.POLLOUT)
        self._came = bytearray()

    def send(self, message: bytes | memoryview, wait_s: float) -> bool:
        """False when the other end has read nothing for so long; Closed."""
        size = len(message)
        left = memoryview(b"".join([HEAD.pack(size) if size < 1 << 31 else LARGE_HEAD.pack(-1, size), message]))
        while left:
            if not self._outgoing.poll(wait_s * 1000):
                return False
            try:
                left = left[os.write(self.pipe.fileno(), left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise Closed from error
        return True

    def arrived(self, wait_s: float) -> bool:
        """Whether there is a whole message, now or within so much time; Closed, Garbled."""
        until = monotonic() + wait_s
        while not self._whole() and self._incoming.poll(max(until - monotonic(), 0) * 1000):
            self._read()
            if monotonic() >= until:  # one that comes byte by byte always has something to read
                break
        return self._whole() > 0

    def take(self) -> bytes:
        """The one that has arrived."""
        end = self._whole()
        message = bytes(self._came[HEAD.size : end])
        del self._came[:end]
        return message

    def _whole(self) -> int:
        """Bytes of the next message with its head; 0 until all of them have come."""
        if len(self._came) < HEAD.size:
            return 0
        (size,) = HEAD.unpack_from(self._came)
        if not 0 <= size <= LARGEST:
            raise Garbled(f"a message of {size} bytes, where 0 to {LARGEST} are taken")
        return HEAD.size + size if len(self._came) >= HEAD.size + size else 0

    def _read(self) -> None:
        try:
            came = os.read(self.pipe.fileno(), CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            raise Closed from error
        if not came:
            raise Closed
        self._came += came
