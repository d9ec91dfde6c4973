"""An OpenID provider that misbehaves as it is told to. It holds its client to the protocol all the same: state, nonce, PKCE (S256),
redirect and secret are asked for, a code is good once. It says "listening", and ends when it is killed.

    oidc_provider.py PORT CLIENT_SECRET

PUT /control takes {"mode": ..., "claims": {...}}; the modes are in `claims` and `sign` below. GET /log says what was asked.
GET /logout-token makes a logout token of a kind, with claims of its own.
"""

import base64
import hashlib
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

PORT, SECRET = int(sys.argv[1]), sys.argv[2]
ISSUER = f"http://127.0.0.1:{PORT}"
CLIENT = "ichor"

first, second, foreign = (RSAKey.generate_key(2048, {"kid": kid, "use": "sig"}) for kid in ("first", "second", "foreign"))
state = {"mode": "good", "claims": {}}
codes = {}
log = []
issued = []


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(mode, nonce, access_token):
    now = int(time.time())
    said = {"iss": ISSUER, "aud": CLIENT, "sub": "7", "iat": now, "exp": now + 300, "nonce": nonce, **state["claims"]}
    said["at_hash"] = encoded(hashlib.sha256(access_token.encode()).digest()[:16])
    match mode:
        case "wrong-nonce":
            said["nonce"] = "another"
        case "no-nonce":
            del said["nonce"]
        case "wrong-audience":
            said["aud"] = "another"
        case "more-audiences":
            said["aud"] = [CLIENT, "another"]
        case "wrong-azp":
            said["azp"] = "another"
        case "wrong-issuer":
            said["iss"] = "http://127.0.0.1:1"
        case "expired":
            said["exp"] = now - 1
        case "stale":
            said["iat"] = now - 3600
        case "wrong-at-hash":
            said["at_hash"] = encoded(b"0123456789abcdef")
    return said


def sign(mode, said):
    match mode:
        case "alg-none":
            return ".".join([encoded(b'{"alg":"none"}'), encoded(json.dumps(said).encode()), ""])
        case "hmac":
            return jwt.encode({"alg": "HS256"}, said, OctKey.import_key(SECRET))
        case "unknown-key":
            return jwt.encode({"alg": "RS256", "kid": "foreign"}, said, foreign)
        case "foreign-key":
            return jwt.encode({"alg": "RS256", "kid": "first"}, said, foreign)
        case "rotated":
            return jwt.encode({"alg": "RS256", "kid": "second"}, said, second)
        case "broken":
            return jwt.encode({"alg": "RS256", "kid": "first"}, said, first)[:-6] + "AAAAAA"
    return jwt.encode({"alg": "RS256", "kid": "first"}, said, first)


def logout_claims(kind, more):
    now = int(time.time())
    events = {"http://schemas.openid.net/event/backchannel-logout": {}}
    said = {"iss": ISSUER, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": secrets.token_urlsafe(8), "events": events, **more}
    match kind:
        case "expired":
            said["exp"] = now - 1
        case "stale":
            said["iat"] = now - 3600
        case "nonce":
            said["nonce"] = "n"
        case "no-events":
            del said["events"]
        case "other-event":
            said["events"] = {"http://schemas.openid.net/event/another": {}}
        case "wrong-audience":
            said["aud"] = "another"
        case "wrong-issuer":
            said["iss"] = "http://127.0.0.1:1"
        case "no-jti":
            del said["jti"]
        case "nobody":
            said.pop("sub", None)
            said.pop("sid", None)
    return said


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def json(self, body, status=200):
        self.answer(status, json.dumps(body).encode(), Content_Type="application/json")

    def do_PUT(self):
        state.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        log.clear()
        codes.clear()
        self.answer(204)

    def do_GET(self):
        path, query = urlsplit(self.path).path, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        mode = state["mode"]
        if path == "/log":
            return self.json(log)
        if path == "/logout-token":
            token = sign(query["kind"], logout_claims(query["kind"], json.loads(query["claims"])))
            return self.answer(200, token.encode(), Content_Type="text/plain")
        log.append({"path": path, "query": query})
        if mode == "down":
            return self.answer(503)
        if path == "/.well-known/openid-configuration":
            issuer = "http://127.0.0.1:1" if mode == "another-provider" else ISSUER
            return self.json(
                {
                    "issuer": issuer,
                    "authorization_endpoint": f"{ISSUER}/authorize",
                    "token_endpoint": f"{ISSUER}/token",
                    "jwks_uri": f"{ISSUER}/jwks",
                    "end_session_endpoint": f"{ISSUER}/logout",
                    "response_types_supported": ["code"],
                    "subject_types_supported": ["public"],
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
            )
        if path == "/jwks":
            # Another key, once a token was signed with it.
            keys = [second] if codes and mode == "rotated" else [first]
            return self.json({"keys": [key.as_dict(private=False) for key in keys]})
        if path == "/logout":
            known = [one["id_token"] for one in issued]
            if query.get("client_id") != CLIENT or query.get("id_token_hint") not in known:
                return self.answer(400, b"whose logout is this?")
            return self.answer(302, Location=query["post_logout_redirect_uri"])
        if path == "/authorize":
            wanted = {"response_type": "code", "client_id": CLIENT, "code_challenge_method": "S256"}
            has_all = all(query.get(key) for key in ("state", "nonce", "code_challenge", "redirect_uri"))
            if any(query.get(key) != value for key, value in wanted.items()) or not has_all:
                return self.answer(400, b"not as the protocol says")
            code = secrets.token_urlsafe(16)
            codes[code] = query
            back = {"code": code, "state": query["state"], "iss": ISSUER}
            if mode == "refuses":
                back = {"error": "access_denied", "error_description": "<b>DOE^JANE</b>", "state": query["state"]}
            if mode == "mixed-up":
                back["iss"] = "http://127.0.0.1:1"
            return self.answer(302, Location=query["redirect_uri"] + "?" + urlencode(back))
        self.answer(404)

    def do_POST(self):
        form = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).items()}
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(given).decode().partition(":")
        is_client = kind == "Basic" and (unquote(user), unquote(password)) == (CLIENT, SECRET)
        query = codes.pop(form.get("code"), None)
        log.append({"path": "/token", "client": is_client, "code": query is not None})
        proof = encoded(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if not is_client or query is None or proof != query["code_challenge"] or form["redirect_uri"] != query["redirect_uri"]:
            return self.json({"error": "invalid_grant", "error_description": "DOE^JANE"}, 400)
        if state["mode"] == "no-token":
            return self.json({"access_token": "x", "token_type": "Bearer"})
        if state["mode"] == "huge":
            return self.answer(200, b" " * (2 << 20), Content_Type="application/json")
        if state["mode"] == "rotated":
            codes["another"] = query
        token = secrets.token_urlsafe(16)
        said = claims(state["mode"], query["nonce"], token)
        id_token = sign(state["mode"], said)
        issued.append({"id_token": id_token})
        log.append({"id_token": id_token})
        self.json({"access_token": token, "token_type": "Bearer", "id_token": id_token})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
print("listening", flush=True)
server.serve_forever()
