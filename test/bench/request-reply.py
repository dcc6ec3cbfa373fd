"""Moves a folder of pictures as imagezmq does: one message each, and a reply before the next one.

    request-reply.py receive PORT FOLDER
    request-reply.py send PORT FOLDER
    request-reply.py pace PORT FPS FRAMES BYTES    prints the milliseconds of each frame
"""

import os
import sys
import time

import zmq

role, port, *rest = sys.argv[1:]
folder = rest[0]
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
elif role == "pace":
    fps, frames, size = (int(word) for word in rest)
    socket = context.socket(zmq.REQ)
    socket.connect(address)
    picture = os.urandom(size)
    began = time.perf_counter()
    for number in range(frames):
        pause = began + number / fps - time.perf_counter()
        if pause > 0:
            time.sleep(pause)
        captured = time.perf_counter()
        socket.send_multipart([f"{number}.bin".encode(), picture], copy=False)
        socket.recv()
        print((time.perf_counter() - captured) * 1000)
    socket.send_multipart([b"", b""])
    socket.recv()
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
