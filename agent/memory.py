"""Memory that is freed goes back to the system."""

import ctypes
import platform


def give_back() -> None:
    """Let large arrays go back to the system at once: glibc by default learns to keep them."""
    if platform.libc_ver()[0] == "glibc":
        m_mmap_threshold, m_arena_max = -3, -8  # malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 256 * 1024)
        libc.mallopt(m_arena_max, 1)  # one heap for all threads: they take turns anyway
