// The reference for introspection: `oidc-provider` on the same Redis, set up as its documentation asks of production.
// `node provider.mjs FILE`, a file of {port, redis, tokens, secret, file}: it keeps that many opaque access tokens, writes
// them to `file`, one a line, and then serves.
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../tests/interop/node/package.json", import.meta.url));
const { Redis } = require("ioredis");
const { Provider } = require("oidc-provider");

const { port, redis, tokens, secret, file } = JSON.parse(readFileSync(process.argv[2], "utf8"));
// Commands of one turn of the loop go out together, which is the fastest that ioredis has.
const store = new Redis(redis, { keyPrefix: "oidc:", enableAutoPipelining: true });

// What is introspected here is neither consumed nor found by another name, so that one key and one command do.
class Adapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    await store.set(`${this.model}:${id}`, JSON.stringify(payload), "EX", expiresIn);
  }

  async find(id) {
    const kept = await store.get(`${this.model}:${id}`);
    return kept ? JSON.parse(kept) : undefined;
  }
}

const AUDIENCE = "https://api.example";
const key = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey.export({ format: "jwk" });
const redirects = { redirect_uris: ["https://client.example/cb"] };
const provider = new Provider(`http://127.0.0.1:${port}`, {
  adapter: Adapter,
  clients: [
    { client_id: "resource", client_secret: secret, grant_types: [], response_types: [], redirect_uris: [] },
    { client_id: "client", client_secret: secret, ...redirects },
  ],
  cookies: { keys: [secret] },
  features: {
    devInteractions: { enabled: false },
    introspection: {
      allowedPolicy: (ctx, asking, token) => asking.clientId === "resource" && token.aud === AUDIENCE,
      enabled: true,
    },
  },
  jwks: { keys: [{ ...key, alg: "RS256", use: "sig" }] },
  ttl: { AccessToken: 3600 },
});

const client = await provider.Client.find("client");
const minted = [];
for (let number = 0; number < tokens; number += 1) {
  const accountId = `service-account-${number}`;
  const token = new provider.AccessToken({ accountId, client, scope: "read write orders:read orders:write" });
  token.aud = AUDIENCE;
  minted.push(await token.save());
}
writeFileSync(file, minted.map((token) => `${token}\n`).join(""));
provider.listen(port, "127.0.0.1");
