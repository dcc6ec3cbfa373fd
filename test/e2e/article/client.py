"""A client of the article's dialect, as SPEC appendix A describes the published one, with its quirks.

    client.py PORT KIND FOLDER DIR [--pieces merged] [--answers counted|eager] [--steps together] [--tiny]

As published it sends both halves of a picture with a wait after each, takes whatever one recv brings for
an answer, and says "continue" and what comes next in two sends.

--pieces merged     the whole picture in one go
--answers counted   as many answers as the server owes, however they run together or are cut
--answers eager     goes on at the first answer to a picture, so that the others come to later steps
--steps together    "continue" and what comes next in one send
--tiny              a picture of one byte is sent as one piece, which the published client never ends
"""

import argparse
import os
import socket

parser = argparse.ArgumentParser()
parser.add_argument("port", type=int)
parser.add_argument("kind")
parser.add_argument("folder")
parser.add_argument("directory")
parser.add_argument("--pieces", default="halves", choices=["halves", "merged"])
parser.add_argument("--answers", default="recv", choices=["recv", "counted", "eager"])
parser.add_argument("--steps", default="apart", choices=["apart", "together"])
parser.add_argument("--tiny", action="store_true")
given = parser.parse_args()

connection = socket.create_connection(("127.0.0.1", given.port))
received = b""


def one_recv():
    answer = connection.recv(1024)
    if answer == b"":
        raise SystemExit("the server closed the connection")
    if answer.strip(b"ok") != b"":
        raise SystemExit(f"the server answered {answer!r}")
    return answer


def await_answers(count):
    """Waits for answers to what was sent last."""
    global received
    if given.answers != "counted":
        one_recv()
        return
    while len(received) < 2 * count:
        received += one_recv()
    if not received.startswith(b"ok" * count):
        raise SystemExit(f"the server answered {received!r}")
    received = received[2 * count :]


def number_of(name):
    return int(name[:-4])


connection.send(f"{given.kind}|{given.folder}".encode())
await_answers(1)
names = sorted(os.listdir(given.directory), key=number_of)
prefix = ""
for index, name in enumerate(names):
    with open(os.path.join(given.directory, name), "rb") as file:
        picture = file.read()
    length = len(picture)
    connection.send(f"{prefix}{length}|{name}".encode())
    await_answers(1)
    piece = length // 2
    if given.tiny and length == 1:
        piece = 1
    if given.pieces == "merged" and length > 0:
        connection.sendall(picture)
        await_answers(1 if length == 1 else 2 + length % 2)
    else:
        sent = 0
        while sent < length:
            sent += connection.send(picture[sent : sent + piece])
            await_answers(1)
    is_last = index == len(names) - 1
    if is_last:
        connection.send(b"over")
    elif given.steps == "together":
        prefix = "continue"
    else:
        connection.send(b"continue")
connection.close()
if given.answers == "counted" and received != b"":
    raise SystemExit(f"the server answered more than it owed: {received!r}")
