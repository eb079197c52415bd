"""What wakes the event loop for gRPC, in a process of its own: the stack is there once for its life."""

import subprocess
import sys

BURST = 10_000
CODE = f"""
import os, socket
pair, made = socket.socketpair, []
def noting():
    made.append(pair())
    return made[-1]
socket.socketpair = noting
from sagad_server.grpc_stack import start_grpc
start_grpc()
assert socket.socketpair is noting, "it is put back"
reader, writer = made[-1]
for _ in range({BURST}):  # as gRPC's poller does, which does not look at the result
    try:
        os.write(writer.fileno(), b"1")
    except BlockingIOError:
        pass
print(len(reader.recv({BURST})))
"""


def test_a_burst_of_events_neither_blocks_the_poller_nor_wakes_the_loop_for_each_of_them() -> None:
    told = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert 1 <= int(told.stdout) <= 64
