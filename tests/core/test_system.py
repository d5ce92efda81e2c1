"""Cores and memory, as the system and the container give them."""

import os

import pytest

from kit.core import system as machine


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


# -- control groups of both kinds, and those above one's own --------------------------------------------------------


def groups(system, text, **files):
    (system / "self").mkdir()
    (system / "self" / "cgroup").write_text(text)
    for name, content in files.items():
        path = system / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(("where", "files", "n"), [
    ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ("4:cpu,cpuacct:/docker/abc\n",  # a container without a view of its own: the path is not there, its group is on top
     {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
    ("1:cpu:/a/b\n", {"cpu/a/cpu.cfs_quota_us": "150000", "cpu/a/cpu.cfs_period_us": "100000",
                      "cpu/a/b/cpu.cfs_quota_us": "400000", "cpu/a/b/cpu.cfs_period_us": "100000"}, 2),
    ("0::/user.slice/job\n", {"user.slice/cpu.max": "500000 100000", "user.slice/job/cpu.max": "max 100000"}, 5),
    ("0::/user.slice/job\n", {"user.slice/cpu.max": "500000 100000", "user.slice/job/cpu.max": "100000 100000"}, 1),
    ("0::/../../outside\n", {"cpu.max": "400000 100000"}, 4)])
def test_the_quota_of_any_group_above_counts(system, monkeypatch, where, files, n):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    groups(system, where, **files)
    assert len(machine.cores()) == n and machine.is_throttled() == (n < 8)


def test_memory_of_a_group_above_and_of_the_older_kind(system):
    (system / "meminfo").write_text("MemAvailable:    2000 kB\n")
    groups(system, "0::/job/step\n4:memory:/old\n", **{
        "job/memory.max": "1500000", "job/memory.current": "100000", "job/memory.stat": "inactive_file 0\n",
        "memory/old/memory.limit_in_bytes": "900000", "memory/old/memory.usage_in_bytes": "400000",
        "memory/old/memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n"})
    assert machine.free_memory() == 600_000 and machine.memory_limit() == 900_000
