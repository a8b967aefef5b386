// An OpenID Provider as people have one already: `oidc-provider` on loopback, with sessions, JWT access tokens for any
// resource (RFC 8707, RFC 9068), revocation and back-channel logout. Its one argument is JSON: {"port", "clients",
// "access_token_seconds"?}; it prints {"issuer"} once it listens. Whoever comes to /auth is logged in as `login_hint`,
// and has consented.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const { port, clients, access_token_seconds: accessTokenSeconds = 300 } = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;

function newKey(kid) {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid, alg: "RS256", use: "sig" };
}

const provider = new Provider(issuer, {
  clients,
  // On loopback, which its own fetch refuses to call.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  jwks: { keys: [newKey("provider-1")] },
  cookies: { keys: ["a key of tests"] },
  pkce: { required: () => false },
  scopes: ["openid", "offline_access", "read", "write"],
  ttl: { AccessToken: accessTokenSeconds, ClientCredentials: accessTokenSeconds, Session: 3600, Grant: 3600, IdToken: 3600, Interaction: 600, RefreshToken: 3600 },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  async loadExistingGrant(ctx) {
    const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope("openid offline_access read write");
    for (const resource of [ctx.oidc.params.resource ?? []].flat()) grant.addResourceScope(resource, "read write");
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: "read write", audience: resource, accessTokenFormat: "jwt", accessTokenTTL: accessTokenSeconds,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
for (const event of ["server_error", "backchannel.error"]) {
  provider.on(event, (_, error, ...more) => console.error(event, error, ...more));
}

const answer = provider.callback();
createServer(async (request, response) => {
  if (!request.url.startsWith("/interaction/")) return answer(request, response);
  try {
    const { params } = await provider.interactionDetails(request, response);
    await provider.interactionFinished(request, response, { login: { accountId: params.login_hint ?? "alice" } });
  } catch (error) {
    response.writeHead(400).end(String(error));
  }
}).listen(port, "127.0.0.1", () => console.log(JSON.stringify({ issuer })));
