"""Python that loses memory of malloc's: what ctypes got is not freed.

usage: forgotten.py SECONDS
"""
import ctypes
import sys
import time

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]


def main():
    until = time.monotonic() + float(sys.argv[1])
    for i in range(1500):
        address = libc.malloc(1000 + i % 500)
        ctypes.memset(address, 1, 1000)
    address = None
    while time.monotonic() < until:
        time.sleep(0.05)


main()
