// Verifies tokens with `jose` as a Node service would, one JSON object {"token"} a line in, one answer a line out.
// Its key set lives for as long as the process does, so that rotations pass before its eyes.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { jwksUri, issuer, audience, cooldownMs } = JSON.parse(process.argv[2]);
const keys = createRemoteJWKSet(new URL(jwksUri), cooldownMs === undefined ? {} : { cooldownDuration: cooldownMs });

for await (const line of createInterface({ input: process.stdin })) {
  const { token } = JSON.parse(line);
  try {
    const { payload, protectedHeader } = await jwtVerify(token, keys, { typ: "at+jwt", issuer, audience });
    console.log(JSON.stringify({ payload, header: protectedHeader }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.code ?? String(error) }));
  }
}
