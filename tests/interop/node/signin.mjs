// Signs a user in with `oauth4webapi`, as an app would that knows nothing but the issuer: code, PKCE, refresh.
// One JSON object {"name"} a line in, one answer a line out; the browser's part is done here, with one cookie.
import { createInterface } from "node:readline";
import * as oauth from "oauth4webapi";

const { issuer, client, redirect } = JSON.parse(process.argv[2]);
const insecure = { [oauth.allowInsecureRequests]: true }; // The test's issuer is http on loopback.
const url = new URL(issuer);
const as = await oauth.processDiscoveryResponse(
  url, await oauth.discoveryRequest(url, { algorithm: "oauth2", ...insecure }),
);
const app = { client_id: client }, nobody = oauth.None();

async function visit(link, name) {
  const begun = await fetch(link, { redirect: "manual" });
  const page = new URL(begun.headers.get("location"));
  const cookie = begun.headers.get("set-cookie").split(";")[0];
  const said = new URLSearchParams({ login_challenge: page.searchParams.get("login_challenge"), name, answer: "allow" });
  const answered = await fetch(page.origin + page.pathname, { method: "POST", body: said, redirect: "manual" });
  const finished = await fetch(answered.headers.get("location"), { headers: { cookie }, redirect: "manual" });
  return new URL(finished.headers.get("location"));
}

async function signIn(name) {
  const verifier = oauth.generateRandomCodeVerifier(), state = oauth.generateRandomState();
  const link = new URL(as.authorization_endpoint);
  link.search = new URLSearchParams({
    client_id: client, redirect_uri: redirect, response_type: "code", scope: "read", state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
  });
  const answer = oauth.validateAuthResponse(as, app, await visit(link, name), state);
  const first = await oauth.processAuthorizationCodeResponse(
    as, app, await oauth.authorizationCodeGrantRequest(as, app, nobody, answer, redirect, verifier, insecure),
  );
  const next = await oauth.processRefreshTokenResponse(
    as, app, await oauth.refreshTokenGrantRequest(as, app, nobody, first.refresh_token, insecure),
  );
  return { scope: next.scope, token: next.access_token, turned: first.refresh_token !== next.refresh_token };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { name } = JSON.parse(line);
  try {
    console.log(JSON.stringify(await signIn(name)));
  } catch (error) {
    console.log(JSON.stringify({ error: error.error ?? error.code ?? String(error) }));
  }
}
