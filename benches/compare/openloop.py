#!/usr/bin/env python3
"""Requests at a fixed average rate, at moments drawn beforehand, each on a connection that is free then; prints the
latency of each in microseconds, counted from the moment it was due. A proxy that stalls is seen to stall: requests
go on falling due. Arguments: port, requests a second, seconds."""

import ctypes
import gc
import random
import select
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"
# More requests in flight than this, and the proxy is not keeping up: there is nothing to measure.
MOST_CONNECTIONS = 1000
# Lets sleeps end a nanosecond late, not fifty microseconds (linux/prctl.h).
PR_SET_TIMERSLACK = 29


def main():
    port, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    draw = random.Random(1)
    due, at = [], 0.0
    while at < seconds:
        at += draw.expovariate(rate)
        due.append(at)
    poller = select.epoll()
    sockets, idle, began = {}, [], {}

    def connect():
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setblocking(False)
        poller.register(s.fileno(), select.EPOLLIN)
        sockets[s.fileno()] = s
        idle.append(s.fileno())

    for _ in range(32):
        connect()
    gc.disable()
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    clock = time.perf_counter
    latencies, following, start = [], 0, clock()
    while following < len(due) or began:
        now = clock() - start
        while following < len(due) and due[following] <= now:
            if not idle:
                if len(sockets) >= MOST_CONNECTIONS:
                    sys.exit(f"more than {MOST_CONNECTIONS} requests wait for an answer")
                connect()
            fd = idle.pop()
            sockets[fd].send(REQUEST)
            began[fd] = due[following]
            following += 1
        wait = max(0.0, due[following] - (clock() - start)) if following < len(due) else 5.0
        # It must not spin: the upstream has the same core. `select` sleeps for microseconds where `epoll_wait` has a
        # grain of a millisecond.
        ready, _, _ = select.select([poller], [], [], wait)
        events = poller.poll(0) if ready else []
        for fd, _ in events:
            answer = sockets[fd].recv(4096)
            if not answer.startswith(b"HTTP/1.1 200") or fd not in began:
                sys.exit(f"not an answer: {answer[:80]!r}")
            latencies.append((clock() - start - began.pop(fd)) * 1e6)
            idle.append(fd)
        if not events and following >= len(due) and began:
            sys.exit(f"{len(began)} requests were never answered")
    print(*(f"{latency:.1f}" for latency in latencies))


main()
