"""Lines of stdin, as many at once as are there."""

from collections.abc import Callable, Iterator
from io import BufferedIOBase
from typing import TypeVar

from recattn_jax.errors import UserError
from recattn_jax.untrusted import LINE_BYTES

CHUNK = 1 << 16  # bytes; what a pipe of Linux holds
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

Line = TypeVar("Line")


def arriving(stream: BufferedIOBase, read: Callable[[str], Line]) -> Iterator[list[Line]]:
    """Reads lines as they come: each time all that are there, waiting only where none is.

    So whoever types lines is answered after each, lines that come in while others are answered wait
    together, and a file comes in large pieces. A line ends with LF or CR LF; the last one may end
    with the stream.

    Args:
      stream: of bytes; its `read1` returns as soon as there is something.
      read: makes of a line, without its end, what is wanted.

    Yields:
      What was made of one or more lines, in their order.

    Raises:
      UserError: a line is not UTF-8, or too long, or `read` refused it; names its number. Lines
        before it have been yielded.
    """
    number = 0
    for lines in _whole(stream):
        done: list[Line] = []
        for line in lines:
            number += 1
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            try:
                done.append(read(_text(line)))
            except UserError as error:
                if done:
                    yield done
                raise UserError(f"stdin, line {number}: {error}") from None
        yield done


def _whole(stream: BufferedIOBase) -> Iterator[list[bytes]]:
    rest, number = b"", 1
    while piece := stream.read1(CHUNK):
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield lines
        number += len(lines)
        if len(rest) > LINE_BYTES:
            raise UserError(f"stdin, line {number}: longer than {LINE_BYTES} bytes; cut it")
    if rest:
        yield [rest]


def _text(line: bytes) -> str:
    try:
        return line.removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is not UTF-8"
        ) from None
