"""A reader of board lines and link frames, written from PROTOCOL.md alone; it imports nothing of the package."""

import base64
import hashlib
import hmac
import json
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from nacl import bindings
from nacl.public import PrivateKey, SealedBox
from nacl.signing import VerifyKey


def must(condition, what):
    if not condition:
        raise ValueError(what)


def strings(data):
    """Cut bytes into SSH strings."""
    size = 4 + int.from_bytes(data[:4])
    must(not data or len(data) >= size, "a string that is cut short")
    return [data[4:size], *strings(data[size:])] if data else []


def string(data):
    return struct.pack(">I", len(data)) + data


def signer(blob, message, namespace):
    """Check an SSHSIG; return the fingerprint of the key that made it."""
    must(blob[:10] == b"SSHSIG\0\0\0\1", "no SSHSIG")
    public, used, reserved, algorithm, signature = strings(blob[10:])
    must((used, reserved, algorithm) == (namespace.encode(), b"", b"sha512"), "another purpose")
    text = b"SSHSIG" + b"".join(map(string, (used, b"", algorithm, hashlib.sha512(message).digest())))
    kind, (name, raw) = strings(public)[0], strings(signature)
    key = load_ssh_public_key(kind + b" " + base64.b64encode(public))
    if isinstance(key, ed25519.Ed25519PublicKey) and name == b"ssh-ed25519":
        key.verify(raw, text)
    elif isinstance(key, rsa.RSAPublicKey) and name == b"rsa-sha2-512":
        must(key.key_size >= 2048 and key.public_numbers().e < 1 << 32, "a weak or costly key")
        key.verify(raw, text, padding.PKCS1v15(), hashes.SHA512())
    else:
        must(isinstance(key, ec.EllipticCurvePublicKey) and name == kind, "a kind of key that is not accepted")
        hashed = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}[key.curve.key_size]()
        key.verify(utils.encode_dss_signature(*(int.from_bytes(part) for part in strings(raw))), text, ec.ECDSA(hashed))
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def certificate(wire, clusters, now):
    """Check a certificate; return its fields, with the member's fingerprint as ``member``."""
    must(len(wire) <= 1800, "a certificate that is too large")
    body, signature, *vouch = strings(wire)
    member = signer(signature, body, "p2p-ipython-session@v1")
    fields = json.loads(body)
    must(fields["cluster"] in clusters and fields["role"] in {"client", "worker", "host"}, "not for this cluster")
    must(0 <= fields["until"] - now <= 24 * 3600 + 600, "ended, or lives too long")
    if vouch:
        (word, proof), host = strings(vouch[0]), fields["role"] == "host"
        said = json.loads(word)
        must(not host and (said["cluster"], said["key"]) == (fields["cluster"], member), "a vouch for another key")
        must(0 <= said["until"] - now <= 365 * 86400 + 600, "a vouch that has ended")
        member = signer(proof, word, "p2p-ipython-vouch@v1")
    return {**fields, "member": member, "vouched": bool(vouch), "wire": wire}


def roster(wire, cluster):
    """Check a roster; return its fields."""
    must(len(wire) <= 128 << 10, "a roster that is too large")
    body, signature = strings(wire)
    owner, name = cluster.rsplit("/", 1)
    must(signer(signature, body, "p2p-ipython-roster@v1") == owner, "not by the owner")
    fields = json.loads(body)
    must((fields["cluster"], fields["title"].split("/")[1]) == (cluster, name), "another cluster")
    keys = [key for member in fields["members"] for key in member["keys"]]
    must(fields["epoch"] >= 1 and owner in fields["members"][0]["keys"] and len(set(keys)) == len(keys), "no roster")
    return fields


def commitment(topic, key):
    return hashlib.sha256(b"p2p-ipython/roster/v1\0" + string(topic.encode()) + key).hexdigest()


def is_member(known, shown, now):
    """Whether a certificate is a member's by a roster."""
    if shown["role"] == "host":
        return shown["member"] == known["cluster"].rsplit("/", 1)[0]
    roles = [role for one in known["members"] if shown["member"] in one["keys"] for role in one["roles"]]
    return now <= known["until"] and shown["role"] in roles


class Topic:
    """Reads the lines of one topic; ``clusters`` are those that certificates may be for."""

    def __init__(self, topic, key, clusters):
        self.scope, self.key, self.clusters = string(topic.encode()) + key, key, clusters
        self.known, self.taken = {}, {}

    def read(self, line, now):
        """Return (certificate, message) of a line, without its newlines."""
        must(line[:3] == b"p1 " and len(line) <= 4096, "no line")
        sealed, prefix = base64.b64decode(line[3:], validate=True), b"p2p-ipython/board/v1\0"
        plain = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed[24:], prefix, sealed[:24], self.key)
        signature, signed, (sid, seq, size) = plain[:64], plain[64:], struct.unpack_from(">16sQH", plain, 64)
        shown, message = signed[26 : 26 + size], signed[26 + size :]
        said = certificate(shown, self.clusters, now) if shown else self.known[sid]
        old, same = self.known.get(sid, said), ("ed25519", "x25519", "role", "member")
        must(said["sid"] == sid.hex() and all(old[name] == said[name] for name in same), "somebody else's certificate")
        VerifyKey(bytes.fromhex(said["ed25519"])).verify(prefix + self.scope + signed, signature)
        taken = self.taken.setdefault(sid, set())
        must(seq >= 1 and seq not in taken and seq > max(taken, default=0) - 64, "a line that was heard before")
        taken.add(seq)
        self.known[sid] = said
        return said, json.loads(message)


def unseal(box, secret):
    return json.loads(SealedBox(PrivateKey(secret)).decrypt(base64.b64decode(box)))


def key_for(key, purpose):
    return hmac.digest(key, purpose.encode(), "sha256")


def greet(header, proof, meeting, shown, client, worker):
    """Check an end's ``link.hello``: the meeting's session, and the proof of the session that ``shown`` certifies."""
    must(header["t"] == "link.hello" and header.get("version", 1) == 1, "no hello of this version")
    must(header["session"] == key_for(meeting["key"], "session").hex()[:32], "another link")
    text = b"p2p-link/v1\0" + string(meeting["verifier"]) + client + worker
    VerifyKey(bytes.fromhex(shown["ed25519"])).verify(text, proof)


def frames(data):
    while data:
        head, size = struct.unpack_from(">II", data)
        must(max(head, size) <= 1 << 20 and 8 + head + size <= len(data), "a frame that is too large, or cut")
        yield json.loads(data[8 : 8 + head]), data[8 + head : 8 + head + size]
        data = data[8 + head + size :]


def pieces(segments, body, buffers):
    """The segments of a task or a result: inline ones from the body, in this order, the others by their ref."""
    for size, ref in segments:
        piece, body = (body[:size], body[size:]) if ref is None else (buffers[ref], body)
        must(len(piece) == size, "a segment that is not whole")
        yield piece
    must(not body, "a body that is longer than its segments")
