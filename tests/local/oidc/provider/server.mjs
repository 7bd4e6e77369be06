// A real OpenID provider for tests. It prints its issuer, then obeys one command a line on standard input, each answered
// with a line: `rotate` (new keys, the old ones are gone), `add` (new keys sign, the old ones stay), `down` (nobody
// listens), `up`, `slow MILLISECONDS` (before each answer). It ends with its standard input.
//
// Clients are users: `ana` and `bo` with the secret `secret`. The resource says what the token is to be:
// `urn:AUDIENCE:ALGORITHM:SECONDS`, as in urn:modelyard:ES256:60.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

const GROUPS = { ana: ['analysts', 'everyone'], bo: ['everyone'] };
const KINDS = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ES384: () => generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
};

const made = () =>
  Object.entries(KINDS).map(([alg, make]) => {
    const jwk = make().privateKey.export({ format: 'jwk' });
    // A RSA key without `alg` signs with every algorithm of its kind.
    return { ...jwk, kid: randomUUID(), use: 'sig', ...(alg === 'RS256' ? {} : { alg }) };
  });

function provider(issuer, keys) {
  return new Provider(issuer, {
    jwks: { keys },
    ttl: { ClientCredentials: (_context, token) => token.resourceServer.accessTokenTTL },
    clients: Object.keys(GROUPS).map((id) => ({
      client_id: id,
      client_secret: 'secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo(_context, resource) {
          const [, audience, alg, seconds] = resource.split(':');
          return { scope: '', audience, accessTokenTTL: Number(seconds), accessTokenFormat: 'jwt', jwt: { sign: { alg } } };
        },
      },
    },
    extraTokenClaims: (_context, token) => ({
      groups: GROUPS[token.clientId],
      email: `${token.clientId}@example.test`,
      email_verified: token.clientId === 'ana',
      realm: { roles: GROUPS[token.clientId] },
    }),
  });
}

let answer = (_request, response) => response.writeHead(503).end();
let delay = 0;
const server = createServer((request, response) => setTimeout(() => answer(request, response), delay));
const listen = (port) => new Promise((done) => server.listen(port, '127.0.0.1', done));

await listen(0);
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;
let keys = made();
answer = provider(issuer, keys).callback();
console.log(issuer);

const commands = {
  rotate() {
    keys = made();
    answer = provider(issuer, keys).callback();
  },
  add() {
    keys = [...made(), ...keys];
    answer = provider(issuer, keys).callback();
  },
  down: () =>
    new Promise((done) => {
      server.close(done);
      server.closeAllConnections();
    }),
  up: () => listen(port),
  slow(milliseconds) {
    delay = Number(milliseconds);
  },
};
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = line.split(' ');
  await commands[command](...rest);
  console.log('done');
}
process.exit(0);
