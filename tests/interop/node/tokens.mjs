// Asks about tokens and revokes them with `oauth4webapi`, as a Node service would that knows nothing but the issuer.
// One JSON object {"ask", "token"} a line in, one answer a line out; "ask" is "json", "jwt" or "revoke".
import { createInterface } from "node:readline";
import * as oauth from "oauth4webapi";

const { issuer, resource, client, method } = JSON.parse(process.argv[2]);
const insecure = { [oauth.allowInsecureRequests]: true }; // The test's issuer is http on loopback.
const url = new URL(issuer);
const found = await oauth.discoveryRequest(url, { algorithm: "oauth2", ...insecure });
const as = await oauth.processDiscoveryResponse(url, found);

function proof({ secret }) {
  return method === "client_secret_post" ? oauth.ClientSecretPost(secret) : oauth.ClientSecretBasic(secret);
}

async function introspect(token, requestJwtResponse) {
  const asked = { client_id: resource.id };
  const options = { requestJwtResponse, ...insecure };
  const response = await oauth.introspectionRequest(as, asked, proof(resource), token, options);
  const told = await oauth.processIntrospectionResponse(as, asked, response);
  if (requestJwtResponse) await oauth.validateApplicationLevelSignature(as, response, insecure);
  return { told, type: response.headers.get("content-type") };
}

async function revoke(token) {
  const response = await oauth.revocationRequest(as, { client_id: client.id }, proof(client), token, insecure);
  await oauth.processRevocationResponse(response);
  return { told: response.status };
}

for await (const line of createInterface({ input: process.stdin })) {
  const { ask, token } = JSON.parse(line);
  try {
    console.log(JSON.stringify(ask === "revoke" ? await revoke(token) : await introspect(token, ask === "jwt")));
  } catch (error) {
    console.log(JSON.stringify({ error: error.error ?? error.code ?? String(error), status: error.status }));
  }
}
