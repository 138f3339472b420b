import os
import resource
import socket
import subprocess
import sys
import time

import pytest

from modeling_dkd.embedding import batch_claims
from modeling_dkd.embedding.batch_claims import BatchClaims, visible_processes


def test_a_lost_claim_is_taken_over_and_a_live_one_is_not(tmp_path):
    first, second = (BatchClaims(tmp_path, heartbeat=0.05, patience=0.5) for _ in range(2))
    with first, second:
        assert first.take("a")
        assert not second.take("a")
        time.sleep(0.8)  # longer than the patience, but the claim is kept alive
        assert not second.take("a")
        first.release("a")
        assert second.take("a")
        elsewhere = tmp_path / "b.claim"
        elsewhere.write_text("another-machine 1 x")
        assert not second.take("b")  # it may be alive
        os.utime(elsewhere, (time.time() - 2, time.time() - 2))
        assert second.take("b")
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        (tmp_path / "c.claim").write_text(f"{visible_processes()} {gone.pid} x")
        assert second.take("c")  # a process of this machine that is gone, at once
        (tmp_path / "d.claim").write_text("torn")
        assert not second.take("d")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.claim"]


@pytest.mark.skipif(sys.platform != "linux", reason="containers number their processes anew on Linux alone")
def test_a_claim_of_another_container_on_this_machine_is_left_while_it_is_kept_alive(tmp_path, monkeypatch):
    """It has the machine's name, and its process has a number that no process here has."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(batch_claims.os, "getpid", lambda: gone.pid)
    with monkeypatch.context() as context:
        context.setattr(batch_claims.os, "readlink", lambda _: "pid:[1]")
        there = BatchClaims(tmp_path, heartbeat=0.05, patience=0.5)
    with monkeypatch.context() as context:
        boot = tmp_path / "boot_id"
        boot.write_text("another-start\n")
        context.setattr(batch_claims, "BOOT", boot)
        namesake = BatchClaims(tmp_path, heartbeat=0.05, patience=0.5)
        context.setattr(batch_claims, "BOOT", tmp_path / "absent")
        untold = BatchClaims(tmp_path, heartbeat=0.05, patience=0.5)
    here, beside = (BatchClaims(tmp_path, patience=0.5) for _ in range(2))
    for other in (there, namesake, untold):
        assert other.owner.startswith(f"{socket.gethostname()}/")
        assert other.take("a")
        assert not here.take("a")
        os.utime(tmp_path / "a.claim", (time.time() - 2, time.time() - 2))
        assert here.take("a")
        here.release("a")
    assert beside.take("a")  # of this machine, and gone
    assert here.take("a")


def test_a_claim_that_the_disk_refuses_is_told_and_keeps_nobody_waiting(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with BatchClaims(tmp_path) as claims:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a full disk: files are made, and stay empty
        try:
            with pytest.raises(OSError, match=r"a\.claim cannot be written: File too large"):
                claims.take("a")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())
        assert claims.take("a")
    assert not list(tmp_path.iterdir())
