"""Peer: CPython's multiprocessing.Pool. Arguments: KIND WORKERS WARM_UP COUNT SINGLE CHUNK SPIN_NS RESULT_BYTES

KIND is the task: square, spin, result; or submit, one square after the other. CHUNK is 0 for the pool's own choice. Prints how many results were
right, and nanoseconds: of all behind the warm-up, then of each single one.
"""

import multiprocessing
import sys
import time

KIND = sys.argv[1]
WORKERS, WARM_UP, COUNT, SINGLE, CHUNK, SPIN_NS, RESULT_BYTES = map(int, sys.argv[2:])
FILLING = bytes(number * 37 % 251 for number in range(1024 - 8)) if KIND == "result" else b""


def square(number):
    return number * number


def spin(number):
    end = time.perf_counter_ns() + SPIN_NS
    while time.perf_counter_ns() < end:
        pass
    return number * number


def result(number):
    return (number.to_bytes(8, "little") + FILLING) * (RESULT_BYTES // 1024)


def mapped(pool):
    task = {"square": square, "spin": spin, "result": result}[KIND]
    check = result if KIND == "result" else square
    pool.map(task, range(WARM_UP), CHUNK or None)
    start = time.perf_counter_ns()
    results = pool.map(task, range(COUNT), CHUNK or None)
    wall = time.perf_counter_ns() - start
    return sum(one == check(number) for number, one in enumerate(results)), [wall]


def submitted(pool):
    right, single = 0, []
    for number in range(WARM_UP + COUNT + SINGLE):
        if number == WARM_UP:
            start = time.perf_counter_ns()
        if number == WARM_UP + COUNT:
            wall = time.perf_counter_ns() - start
        before = time.perf_counter_ns()
        right += pool.apply(square, (number,)) == number * number
        if number >= WARM_UP + COUNT:
            single.append(time.perf_counter_ns() - before)
    return right, [wall, *single]


def main():
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        right, times = submitted(pool) if KIND == "submit" else mapped(pool)
    print(right, *times)


main()
