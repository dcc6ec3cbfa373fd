"""Send and receive camera frames, through the executable `frames`.

    import frames

    with frames.Sender("site-a", to="storage") as out:
        out.send("visible", jpeg_bytes)
        out.send("thermal", array, captured=time_ns, metadata={"exposure": 4})

    for frame in frames.receive("site-a", server="storage", follow=True):
        print(frame.source, frame.number, frame.array.shape)

Needs Python 3.8 and `frames` on the PATH. Arrays need numpy; the arrays of JPEG and PNG need
OpenCV. This file was written by `frames python`, and fits that version of `frames`.
"""

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import weakref

__version__ = "VERSION"
__all__ = ["Frame", "FramesError", "Sender", "receive"]


class FramesError(Exception):
    """What `frames` could not do, in its words. `exit_code` is one of `frames help exit-codes`."""

    def __init__(self, message, exit_code):
        super().__init__(message)
        self.exit_code = exit_code


# Layout of raw formats: numpy's type and the samples of a pixel. Names as in ffmpeg.
_LAYOUTS = {
    "gray": ("|u1", 1),
    "gray16le": ("<u2", 1),
    "gray16be": (">u2", 1),
    "grayf32le": ("<f4", 1),
    "grayf32be": (">f4", 1),
    "rgb24": ("|u1", 3),
    "bgr24": ("|u1", 3),
    "rgba": ("|u1", 4),
    "bgra": ("|u1", 4),
    "rgb48le": ("<u2", 3),
    "bgr48le": ("<u2", 3),
    "rgba64le": ("<u2", 4),
    "bgra64le": ("<u2", 4),
}
for _order in ("rggb", "bggr", "gbrg", "grbg"):
    _LAYOUTS["bayer_%s8" % _order] = ("|u1", 1)
    _LAYOUTS["bayer_%s16le" % _order] = ("<u2", 1)
for _bits in (9, 10, 12, 14):
    _LAYOUTS["gray%dle" % _bits] = ("<u2", 1)

# Names that ROS and OpenCV use, for the `format` of an array.
_NAMES = {
    "mono8": "gray",
    "mono16": "gray16le",
    "rgb8": "rgb24",
    "bgr8": "bgr24",
    "rgba8": "rgba",
    "bgra8": "bgra",
    "8UC1": "gray",
    "8UC3": "bgr24",
    "8UC4": "bgra",
    "16UC1": "gray16le",
    "32FC1": "grayf32le",
}

# Format of an array by its type and channels. Three channels are in OpenCV's order.
_DEFAULTS = {
    ("|u1", 1): "gray",
    ("|u1", 3): "bgr24",
    ("|u1", 4): "bgra",
    ("<u2", 1): "gray16le",
    ("<u2", 3): "bgr48le",
    ("<u2", 4): "bgra64le",
    ("<f4", 1): "grayf32le",
}

_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n", "image/png"),
    (b"\x93NUMPY", "application/x-npy"),
)

# Encoded video, for the `format` of an access unit in Annex B.
_VIDEO = {"h264": "video/h264", "h265": "video/h265"}


def _pack(data, format):
    """Return the bytes of a frame and its header lines.

    >>> _pack(b"\\0\\0\\1\\x65\\x88", "h264")[1]
    ['Content-Type: video/h264']
    >>> import numpy
    >>> _pack(numpy.zeros((2, 3), numpy.uint16), None)[1]
    ['X-Raw: 3x2:gray16le']
    >>> _pack(numpy.zeros((2, 3, 3), numpy.uint8), "rgb8")[1]
    ['X-Raw: 3x2:rgb24']
    >>> _pack(numpy.zeros((4, 6), numpy.float32)[::2, ::2], None)[1]
    ['X-Raw: 3x2:grayf32le']
    >>> _pack(numpy.zeros((2, 3)), None)
    Traceback (most recent call last):
    TypeError: cannot send an array of float64 with shape (2, 3): expected uint8, uint16 or float32, as (height, width) or (height, width, channels)
    """
    is_array = hasattr(data, "__array_interface__")
    # Not `bytes(data)`, which makes zeros of a number and the name of a file of its path.
    if not is_array or data.ndim == 1 and data.dtype == "u1":
        picture = memoryview(data).tobytes()
        types = [kind for start, kind in _SIGNATURES if picture.startswith(start)]
        if format in _VIDEO:
            types = [_VIDEO[format]]
        # cv2.imencode returns pictures as arrays.
        if types or not is_array:
            return picture, ["Content-Type: " + kind for kind in types]
    import numpy

    channels = data.shape[2] if data.ndim == 3 else 1
    kind = data.dtype.newbyteorder("<").str
    name = _NAMES.get(format, format) or _DEFAULTS.get((kind, channels))
    if data.ndim not in (2, 3) or data.size == 0 or name not in _LAYOUTS:
        name = None
    elif (numpy.dtype(_LAYOUTS[name][0]).newbyteorder("<").str, _LAYOUTS[name][1]) != (kind, channels):
        name = None
    if name is None:
        wanted = "uint8, uint16 or float32" if format is None else "the type and channels of " + format
        raise TypeError(
            "cannot send an array of %s with shape %s: expected %s, "
            "as (height, width) or (height, width, channels)" % (data.dtype, data.shape, wanted)
        )
    height, width = data.shape[:2]
    data = numpy.ascontiguousarray(data, _LAYOUTS[name][0])
    return memoryview(data).cast("B"), ["X-Raw: %dx%d:%s" % (width, height, name)]


def _escape(text):
    """Return text that fits into a header, where spaces before it would be left out.

    >>> _escape(" 50%\\n")
    '%2050%25%0a'
    """
    return re.sub(r"^ |[%\x00-\x1f\x7f-\x9f]", _escape_character, text)


def _escape_character(match):
    return "".join("%%%02x" % byte for byte in match.group().encode())


def _unescape(text):
    """Reverse `_escape`.

    >>> _unescape("50%25%0a")
    '50%\\n'
    """
    return re.sub(r"(?:%[0-9a-f]{2})+", _unescape_characters, text)


def _unescape_characters(match):
    return bytes.fromhex(match.group().replace("%", "")).decode(errors="replace")


class _Process:
    """A running `frames`, whose messages go to standard error."""

    def __init__(self, command, **pipes):
        _check_version(command[0])
        # A session of its own: Ctrl-C reaches the program only, which can still close the pipe.
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, start_new_session=True, **pipes
        )
        self._reason = ""
        self._messages = threading.Thread(target=self._pass_messages, daemon=True)
        self._messages.start()

    def _pass_messages(self):
        for line in self.process.stderr:
            text = line.decode(errors="replace").rstrip()
            if text.startswith("frames: "):
                self._reason = text[len("frames: ") :]
            else:
                print(text, file=sys.stderr)

    def wait(self, timeout=None):
        """Wait for the end. Return its exit code, and its reason if it failed."""
        code = self.process.wait(timeout)
        self._messages.join()
        ended = "was killed by signal %d" % -code if code < 0 else "ended with exit code %d" % code
        return code, self._reason or "frames " + ended

    def stop(self):
        """Ask it to stop, and wait for that."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()


_fitting = set()


def _check_version(executable):
    if executable in _fitting:
        return
    try:
        words = subprocess.run([executable, "version"], stdout=subprocess.PIPE).stdout.split()
    except FileNotFoundError:
        raise FramesError("cannot find the executable %s: install it, or name it" % executable, 1)
    except OSError as error:
        raise FramesError("cannot run the executable %s: %s" % (executable, error.strerror), 1)
    found = words[-1].decode() if words else "unknown"
    if found.split(".")[:2] != __version__.split(".")[:2]:
        raise FramesError(
            "this module is for frames %s, and %s is version %s: write it again with %s python"
            % (__version__, executable, found, executable),
            1,
        )
    _fitting.add(executable)


def _flags(**values):
    words = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is True:
                words.append(flag)
            elif one is not None and one is not False:
                words += [flag, str(one)]
    return words


# Bytes of a header, at most. The executable takes 64 KiB, and ends at a longer one.
_MAX_HEADER = 60000

_senders = weakref.WeakSet()


def _leave_senders():
    for sender in list(_senders):
        sender._leave_to_parent()


# A forked process that keeps a pipe open would keep the end of `with` waiting.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_senders)


def _call(callback, *values):
    """Call it if there is one. Print its error, because the receipts after it must be read."""
    try:
        if callback is not None:
            callback(*values)
    except Exception:
        traceback.print_exc()


class Sender:
    """Sends frames of any number of sources into one stream.

    stream: name of the stream. to: HOST[:PORT] of the server; default: FRAMES_TO, or this machine.
    spool: directory that keeps frames while there is no server; survives this program.
    policy: `latest` or `latest:N` keeps the newest frames if the link is too slow, so that `send`
        never waits for it; `block`, the default, makes `send` wait.
    key_file: file with the server's key. args: more flags of `frames send`.
    on_settled: called from another thread for each frame that the server has: source, number,
        name. on_lost: the same for each frame, or run of frames, that is not delivered: source,
        name of the first, reason.

    Use it in `with`: its end waits until the server has all frames. Any thread can send; a forked
    process cannot.
    """

    def __init__(
        self,
        stream,
        to=None,
        spool=None,
        policy=None,
        key_file=None,
        args=(),
        on_settled=None,
        on_lost=None,
        executable="frames",
    ):
        flags = _flags(stream=stream, to=to, spool=spool, policy=policy, key_file=key_file)
        command = [executable, "send", "-", "--multipart", "--receipts", "--quiet", *flags, *args]
        self._child = _Process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()
        self._on_settled = on_settled
        self._on_lost = on_lost
        # The first frame that was not delivered.
        self._lost = []
        # Frames that the server refused and has not settled yet.
        self._refused = set()
        # What made send fail.
        self._error = None
        self._is_closed = False
        _senders.add(self)
        self._receipts = threading.Thread(target=self._read_receipts, daemon=True)
        self._receipts.start()

    def send(self, source, data, captured=None, name=None, metadata=None, format=None):
        """Send a frame.

        source: name of the camera or sensor. data: the bytes of a picture, or an array of uint8,
            uint16 or float32 with the shape (height, width) or (height, width, channels). Of
            encoded video, one access unit in Annex B, in the order of decoding.
        captured: time of capture in nanoseconds since 1970, as int; default: now.
        name: name of the file, unique in its source; default: start and number.
        metadata: dict of what else is known, at most 4 KiB as JSON, which has no NaN.
        format: what the array holds, such as "rgb8"; default: grey, or OpenCV's order bgr, bgra.
            "h264" or "h265" for encoded video; `frames` tells key frames by their bytes.

        Raises FramesError if `frames` has ended, TypeError for other arrays, ValueError for
        metadata that is not JSON or much too long.
        """
        body, lines = _pack(data, format)
        captured = time.time_ns() if captured is None else captured
        if not isinstance(captured, int) and not hasattr(captured, "__index__"):
            raise TypeError("captured is %r: expected nanoseconds since 1970 as int" % (captured,))
        lines += ["X-Source: " + _escape(source), "X-Captured: %d" % captured]
        if name is not None:
            lines.append("X-Name: " + _escape(name))
        if metadata is not None:
            lines.append("X-Metadata: " + json.dumps(metadata, allow_nan=False))
        head = "\r\n".join(["--frame", "Content-Length: %d" % len(body), *lines, "", ""]).encode()
        if len(head) > _MAX_HEADER:
            raise ValueError("names and metadata have %d bytes: too long" % len(head))
        with self._lock:
            if self._error is not None:
                raise FramesError(*self._error)
            if self._is_closed:
                raise FramesError("the sender is closed", 1)
            try:
                for piece in (head, body, b"\r\n"):
                    self._write(piece)
            except OSError:
                code, reason = self._child.wait()
                self._error = reason, code or 12
                raise FramesError(*self._error) from None
            except BaseException:
                # After a part of a frame, the next one would be read as its rest.
                self._end_pipe()
                raise

    def _write(self, data):
        # Not through the pipe's buffer: its rest would make the end of the pipe wait.
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._child.process.stdin.fileno(), rest) :]

    def _end_pipe(self):
        self._is_closed = True
        self._child.process.stdin.close()

    def _leave_to_parent(self):
        """Close the pipe in a forked process, so that it ends when the parent closes it."""
        self._lock = threading.Lock()
        self._end_pipe()

    def _read_receipts(self):
        for line in self._child.process.stdout:
            receipt = json.loads(line)
            if receipt["type"] == "settled":
                frame = receipt["source"], receipt["sequence"]
                if frame in self._refused:
                    self._refused.remove(frame)
                else:
                    _call(self._on_settled, *frame, receipt["name"])
            if receipt["type"] == "undelivered":
                # Dropped frames never reach the server, so they are not settled later.
                if receipt["error"] != "dropped":
                    self._refused.add((receipt["source"], receipt["first"]))
                lost = receipt["source"], receipt["what"], receipt["message"]
                self._lost.append("%s/%s: %s" % lost)
                del self._lost[1:]
                _call(self._on_lost, *lost)

    def close(self, timeout=None):
        """Wait until the server has all frames.

        timeout: seconds, after which it stops; frames in a spool are sent next time.
        Raises FramesError if frames were not delivered.
        """
        begin = time.monotonic()
        try:
            # Another thread may wait in send for as long as there is no server.
            if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
                raise subprocess.TimeoutExpired("frames", timeout)
            try:
                if not self._is_closed:
                    self._write(b"--frame--\r\n")
            except OSError:
                pass
            finally:
                self._end_pipe()
                self._lock.release()
            left = None if timeout is None else max(0, begin + timeout - time.monotonic())
            code, reason = self._child.wait(left)
        except subprocess.TimeoutExpired:
            code, reason = self._child.stop()
        except BaseException:
            # Ctrl-C: without this it would go on alone, and keep its spool from the next program.
            self._child.stop()
            raise
        self._receipts.join()
        if code == 23 and self._lost:
            reason = "some frames were not delivered, first " + self._lost[0]
        if code != 0:
            raise FramesError(reason, code)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            self.close()
        except FramesError:
            # An error of the program's own comes first.
            if kind is None:
                raise


class Frame:
    """A frame of a stream.

    bytes: its content. source, number, name: as stored. captured: nanoseconds since 1970.
    metadata: dict. session: id of the delivery that the number belongs to.
    raw: `(width, height, format)` of raw frames, or None. is_key: of encoded video, whether a
    decoder can begin with it; of other frames None.
    """

    __slots__ = ("bytes", "source", "number", "name", "captured", "metadata", "session", "raw", "is_key")

    def __init__(self, header, data):
        self.bytes = data
        self.source = _unescape(header["x-source"])
        self.number = int(header["x-sequence"])
        self.name = _unescape(header["x-name"])
        self.captured = int(header["x-captured"])
        self.session = header["x-session"]
        self.metadata = json.loads(header.get("x-metadata", "{}"))
        match = re.match(r"(\d+)x(\d+):(\w+)$", header.get("x-raw", ""))
        self.raw = match and (int(match[1]), int(match[2]), match[3])
        self.is_key = {"1": True, "0": False}.get(header.get("x-key"))

    def __repr__(self):
        return "<Frame %s %d: %s, %d bytes>" % (
            self.source,
            self.number,
            self.name,
            len(self.bytes),
        )

    @property
    def array(self):
        """The frame as a numpy array: (height, width) or (height, width, channels).

        16 bits stay 16 bits. Each call returns a new array. Raw frames have the order of their
        format; pictures are read by OpenCV, in its order. Raises ValueError if there is none.
        """
        import numpy

        if self.raw is not None:
            width, height, format = self.raw
            if format not in _LAYOUTS:
                raise ValueError("no array for the raw format %s: use .bytes" % format)
            kind, channels = _LAYOUTS[format]
            shape = (height, width) if channels == 1 else (height, width, channels)
            return numpy.frombuffer(self.bytes, kind).reshape(shape).copy()
        if self.bytes.startswith(b"\x93NUMPY"):
            return numpy.load(io.BytesIO(self.bytes), allow_pickle=False)
        import cv2

        array = cv2.imdecode(numpy.frombuffer(self.bytes, numpy.uint8), cv2.IMREAD_UNCHANGED)
        if array is None:
            raise ValueError("OpenCV cannot read %s: use .bytes" % self.name)
        return array


def _read_frame(pipe):
    """Return the next frame of the pipe; None at its end."""
    line = pipe.readline()
    while line in (b"\r\n", b"\n"):
        line = pipe.readline()
    if not line.startswith(b"--") or line.rstrip().endswith(b"--"):
        return None
    header = {}
    for line in iter(pipe.readline, b"\r\n"):
        name, colon, value = line.decode().rstrip("\r\n").partition(": ")
        if not colon:
            return None
        header[name.lower()] = value
    size = int(header["content-length"])
    data = pipe.read(size)
    return Frame(header, data) if len(data) == size else None


def receive(
    stream,
    server=None,
    follow=False,
    latest=False,
    source=None,
    since=None,
    first=None,
    key_file=None,
    args=(),
    executable="frames",
):
    """Yield the frames of a stream, each a `Frame`.

    server: HOST[:PORT]; default: FRAMES_FROM, or this machine. follow: go on with new frames, also over lost connections.
    latest: only the newest frame of each source; with follow, frames are dropped while this
        program is busy. source: name, or list of names. since: a time, or an age such as "2h".
    first: end after so many frames. args: more flags of `frames receive`.

    Raises FramesError if the stream cannot be received.
    """
    flags = _flags(
        **{"from": server},
        source=source,
        follow=follow,
        latest=latest,
        since=since,
        first=first,
        key_file=key_file,
    )
    command = [executable, "receive", stream, "-", "--multipart", "--quiet", *flags, *args]
    child = _Process(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    is_complete = False
    try:
        with child.process.stdout as pipe:
            frame = _read_frame(pipe)
            while frame is not None:
                yield frame
                frame = _read_frame(pipe)
        is_complete = True
    finally:
        if not is_complete:
            child.stop()
    code, reason = child.wait()
    if code != 0:
        raise FramesError(reason, code)
