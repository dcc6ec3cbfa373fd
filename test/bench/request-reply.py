"""Moves a folder of pictures as imagezmq does: one message each, and a reply before the next one.

    request-reply.py receive PORT FOLDER
    request-reply.py send PORT FOLDER
"""

import os
import sys

import zmq

role, port, folder = sys.argv[1:]
address = f"tcp://127.0.0.1:{port}"
context = zmq.Context()

if role == "receive":
    socket = context.socket(zmq.REP)
    socket.bind(address)
    while True:
        name, picture = socket.recv_multipart(copy=False)
        if name.bytes:
            with open(os.path.join(folder, name.bytes.decode()), "wb") as file:
                file.write(picture.buffer)
        socket.send(b"OK")
        if not name.bytes:
            break
else:
    socket = context.socket(zmq.REQ)
    socket.connect(address)
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            socket.send_multipart([name.encode(), file.read()], copy=False)
        socket.recv()
    socket.send_multipart([b"", b""])
    socket.recv()

context.destroy(linger=1000)
