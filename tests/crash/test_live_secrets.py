"""Nothing that a live run leaves behind holds its key, its secret, or a signature."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

from tests.crash.relay import relay_to
from tests.crash.test_live_kills import sandbox_process, start_live, trade_until

KEY, SECRET = "SANDBOXKEY4711", "sandboxsecret-0815"


def unmasked(frames: bytes) -> str:
    """Texts of websocket frames that a client has masked (RFC 6455, 5.3), wherever they begin among other bytes."""
    texts = []
    for found in re.finditer(rb"\x81", frames):
        head = frames[found.start() + 1 : found.start() + 10]
        if len(head) < 9 or not head[0] & 0x80:
            continue
        length, skip = head[0] & 0x7F, 2
        if length == 126:
            length, skip = int.from_bytes(head[1:3], "big"), 4
        mask = frames[found.start() + skip : found.start() + skip + 4]
        body = frames[found.start() + skip + 4 : found.start() + skip + 4 + length]
        if len(mask) == 4 and len(body) == length:
            texts.append(bytes(byte ^ mask[index % 4] for index, byte in enumerate(body)).decode("latin-1"))
    return "\n".join(texts)


def test_no_key_secret_or_signature_is_in_what_a_live_run_leaves_behind(tmp_path: Path) -> None:
    with (
        sandbox_process(tmp_path, "--key", KEY, "--secret", SECRET) as url,
        relay_to(int(url.rpartition(":")[2])) as relay,
    ):
        # The first run trades, the second is refused by the venue: errors must not tell either.
        process = start_live(
            tmp_path, relay.url, "--max-bars", "16", "--set", "log.level=debug", key=KEY, secret=SECRET
        )
        trade_until(tmp_path, url, process, None, random.Random(3))
        assert process.wait(60) == 0, (tmp_path / "output.log").read_text()[-3000:]
        refused = start_live(tmp_path, relay.url, "--new", key=KEY, secret=SECRET + "x")
        assert refused.wait(60) in (1, 3), (tmp_path / "output.log").read_text()[-3000:]
        said = relay.heard
    signatures = {found.decode() for found in re.findall(rb"(?i)x-bapi-sign: ([0-9a-f]{64})", said)}
    signatures |= set(re.findall(r'"([0-9a-f]{64})"', unmasked(said)))
    assert len(signatures) > 10, "the relay did not hear the requests"
    assert KEY.encode() in said and SECRET.encode() not in said
    secrets = {KEY, SECRET, *signatures}
    looked_at = 0
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file() and path.name != "sandbox.log":
            data = path.read_bytes()
            looked_at += 1
            for secret in secrets:
                assert secret.encode() not in data, (
                    f"{path.name} holds {'a signature' if len(secret) == 64 else 'a key'}"
                )
    assert looked_at >= 3
    document = json.loads((tmp_path / "output.log").read_text().split("}\n")[0].partition("{")[2].join(("{", "}")))
    assert document["fills"] > 0
