"""A server of the article's dialect, as SPEC appendix A describes the published one, with its quirks.

    server.py DIR [--word eight|any] [--tiny] [--slow SECONDS]

Prints the port, takes one client after the other, and keeps pictures in DIR/FOLDER. As published it
takes each text for what one recv brings, so that two that arrive together break it, and answers after
each recv of up to half a picture: of a picture of one byte it reads 0 bytes for ever.

--word eight   reads "continue" or "over" with a recv of eight bytes
--word any     takes "continue" and what comes next together as well as apart
--tiny         reads one byte at a time of a picture of one byte
--slow         takes so long to put a picture away, before it reads on
"""

import argparse
import os
import socket
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("directory")
parser.add_argument("--word", default="alone", choices=["alone", "eight", "any"])
parser.add_argument("--tiny", action="store_true")
parser.add_argument("--slow", type=float, default=0)
given = parser.parse_args()

kinds = ("visible", "infrared")


def text_of(connection, most=1024):
    received = connection.recv(most)
    if received == b"":
        raise ConnectionError("the client closed the connection")
    return received.decode()


def take_picture(connection, folder, title):
    length, name = title.split("|")
    length = int(length)
    connection.send(b"ok")
    piece = length // 2
    if given.tiny and length == 1:
        piece = 1
    picture = b""
    parts = []
    size = 0
    while size < length:
        part = connection.recv(piece)
        if part == b"" and piece > 0:
            raise ConnectionError("the client closed the connection within a picture")
        parts.append(part)
        size += len(part)
        connection.send(b"ok")
    picture = b"".join(parts)
    if given.slow > 0:
        time.sleep(given.slow)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(picture)


def next_title(connection):
    """What announces the next picture, or nothing after the last."""
    word = text_of(connection, 8 if given.word == "eight" else 1024)
    if word == "over":
        return None
    if word == "continue":
        return text_of(connection)
    if given.word == "any" and word.startswith("continue"):
        return word[len("continue") :]
    raise ValueError(f"neither continue nor over, but {word[:40]!r}")


def serve(connection):
    kind, folder = text_of(connection).split("|")
    if kind not in kinds:
        return
    folder = os.path.join(given.directory, folder)
    os.makedirs(folder, exist_ok=True)
    connection.send(b"ok")
    title = text_of(connection)
    while title is not None and title != "over":
        take_picture(connection, folder, title)
        title = next_title(connection)


listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    try:
        serve(connection)
    except (OSError, ValueError) as error:
        print(f"broke: {error}", file=sys.stderr, flush=True)
    finally:
        connection.close()
