"""What systemd does for a service, in small: prints each datagram of sd_notify as a line of JSON.

    supervisor.py ADDRESS            ADDRESS as NOTIFY_SOCKET has it
    supervisor.py --give KIND COMMAND...     runs COMMAND with a socket as descriptor 3
"""

import json
import os
import re
import socket
import sys
import time


def monotonic():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def listen(address):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind("\0" + address[1:] if address.startswith("@") else address)
    print(json.dumps({"listening": monotonic()}), flush=True)
    while True:
        text = listener.recv(4096).decode()
        fields = dict(line.split("=", 1) for line in text.split("\n"))
        port = re.search(r":(\d+)$", fields.get("STATUS", ""))
        if "READY" in fields and port:
            # Whoever says that it is ready takes connections.
            socket.create_connection(("127.0.0.1", int(port[1])), 5).close()
            fields["connected"] = True
        print(json.dumps({**fields, "at": monotonic()}), flush=True)


def give(kind, command):
    if kind == "unix":
        given = socket.socket(socket.AF_UNIX)
        given.bind("\0frames-test-%d" % os.getpid())
        given.listen()
    elif kind == "file":
        given = open("/dev/null")
    else:
        given = socket.socket(socket.AF_INET6 if ":" in kind else socket.AF_INET)
        given.bind((kind, 0))
        given.listen()
    os.dup2(given.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ["LISTEN_PID"] = str(os.getpid())
    os.environ.setdefault("LISTEN_FDS", "1")
    os.execv(command[0], command)


if sys.argv[1] == "--give":
    give(sys.argv[2], sys.argv[3:])
else:
    listen(sys.argv[1])
