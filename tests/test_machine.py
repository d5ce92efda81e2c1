"""Cores and memory, as the system and the container give them."""

import os

import pytest

from kit import machine


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A folder in the place of /proc and of the container's own."""
    monkeypatch.setattr(machine, "PROC", tmp_path)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("limit", "used", "cached", "free"), [
    ("max", "5", 0, 2048_000), ("1000000", "400000", 0, 600_000), ("1000000", "900000", 300_000, 400_000),
    ("9000000", "0", 0, 2048_000), ("100", "400", 0, 0), (None, None, 0, 2048_000)])
def test_free_memory_is_what_system_and_container_leave(system, limit, used, cached, free):
    (system / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    2000 kB\n")
    if limit is not None:
        (system / "memory.max").write_text(limit)
        (system / "memory.current").write_text(used)
        (system / "memory.stat").write_text(f"anon 100\ninactive_file {cached}\nactive_file 7\n")
    assert machine.free_memory() == free


def test_memory_that_nobody_knows(system):
    assert machine.free_memory() is None


@pytest.mark.parametrize(("quota", "n"), [
    (None, 8), ("max 100000\n", 8), ("200000 100000\n", 2), ("150000 100000\n", 2), ("10000 100000\n", 1),
    ("6400000 100000\n", 8), ("what?", 8)])
def test_cores_are_those_of_the_affinity_within_the_containers_quota(system, monkeypatch, quota, n):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4, 12)), raising=False)
    if quota is not None:
        (system / "cpu.max").write_text(quota)
    assert machine.cores() == list(range(4, 4 + n))


def test_cores_where_the_system_has_no_affinity(system, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert machine.cores() == [0, 1, 2]


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_of_memory_is_the_containers_or_the_machines(system, name):
    whole = machine.memory_limit()
    assert whole > 1 << 28
    (system / "memory").mkdir()
    (system / name).write_text("123456789\n")
    assert machine.memory_limit() == 123456789
    (system / name).write_text("max\n")
    assert machine.memory_limit() == whole
