"""Peer: CPython's multiprocessing. Arguments: KIND SIZE WARM_UP COUNT SINGLE PRODUCERS CONSUMERS CPU...

Prints how many messages were right, and nanoseconds: of all behind the warm-up, then of each single round trip.
"""

import multiprocessing
import os
import sys
import time

KIND = sys.argv[1]
SIZE, WARM_UP, COUNT, SINGLE, PRODUCERS, CONSUMERS, *CPUS = map(int, sys.argv[2:])
FILLING = bytes(number * 37 % 251 for number in range(SIZE - 8))


def message(number):
    return number.to_bytes(8, "little") + FILLING


def pin(number):
    os.sched_setaffinity(0, {CPUS[number % len(CPUS)]})


def echo(receive, send, total):
    pin(1)
    for _ in range(total):
        send(receive())


def round_trips(receive, send):
    right, single = 0, []
    start = time.perf_counter_ns()
    for number in range(WARM_UP + COUNT + SINGLE):
        if number == WARM_UP:
            start = time.perf_counter_ns()
        if number == WARM_UP + COUNT:
            wall = time.perf_counter_ns() - start
        before = time.perf_counter_ns() if number >= WARM_UP + COUNT else 0
        send(message(number))
        right += receive() == message(number)
        if before:
            single.append(time.perf_counter_ns() - before)
    return right, [wall, *single]


def consume(receive, answer):
    pin(1)
    right, start = 0, time.perf_counter_ns()
    for number in range(WARM_UP + COUNT):
        if number == WARM_UP:
            start = time.perf_counter_ns()
        right += receive() == message(number)
    answer.send((right, [time.perf_counter_ns() - start]))


def produce_share(queue, number, meet):
    pin(number)
    share = COUNT // PRODUCERS
    meet.wait()
    for turn in range(share):
        queue.put(message(number * share + turn))


def consume_share(queue, number, meet, answer):
    pin(number)
    share = COUNT // CONSUMERS
    meet.wait()
    got = [queue.get() for _ in range(share)]
    answer.put((sum(one[8:] == FILLING for one in got), sum(int.from_bytes(one[:8], "little") for one in got)))


def many(start):
    queue, meet, answers = multiprocessing.Queue(1024), multiprocessing.Barrier(PRODUCERS + CONSUMERS + 1), multiprocessing.Queue()
    start(*[(consume_share, (queue, number, meet, answers)) for number in range(CONSUMERS)])
    start(*[(produce_share, (queue, number, meet)) for number in range(PRODUCERS)])
    meet.wait()
    begin = time.perf_counter_ns()
    found = [answers.get() for _ in range(CONSUMERS)]
    wall = time.perf_counter_ns() - begin
    right = sum(one for one, _ in found)
    return right if sum(one for _, one in found) == COUNT * (COUNT - 1) // 2 else 0, [wall]


def start_and_join():
    # The children cannot import this script, so they run a function of Python's own.
    os.sched_setaffinity(0, set(CPUS))
    context, right = multiprocessing.get_context("forkserver"), 0
    for number in range(WARM_UP + COUNT):
        if number == WARM_UP:
            start = time.perf_counter_ns()
        process = context.Process(target=os.getpid)
        process.start()
        process.join()
        right += process.exitcode == 0
    return right, [time.perf_counter_ns() - start]


def main():
    multiprocessing.set_start_method("fork")
    started = []

    def start(*works):
        for work, arguments in works:
            started.append(multiprocessing.Process(target=work, args=arguments))
            started[-1].start()

    pin(0)
    total = WARM_UP + COUNT
    if KIND == "pipe_round_trips":
        ours, theirs = multiprocessing.Pipe()
        start((echo, (theirs.recv, theirs.send, total + SINGLE)))
        result = round_trips(ours.recv, ours.send)
    elif KIND == "queue_round_trips":
        there, back = multiprocessing.Queue(1024), multiprocessing.Queue(1024)
        start((echo, (there.get, back.put, total + SINGLE)))
        result = round_trips(back.get, there.put)
    elif KIND in ("pipe", "queue"):
        answer, tell = multiprocessing.Pipe(duplex=False)
        if KIND == "pipe":
            theirs, ours = multiprocessing.Pipe(duplex=False)
            receive, send = theirs.recv, ours.send
        else:
            queue = multiprocessing.Queue(1024)
            receive, send = queue.get, queue.put
        start((consume, (receive, tell)))
        for number in range(total):
            send(message(number))
        result = answer.recv()
    elif KIND == "forkserver":
        result = start_and_join()
    else:
        result = many(start)
    for process in started:
        process.join()
    print(result[0], *result[1])


main()
