// A real OpenID Connect provider for the tests: node provider.mjs PORT.
// Whoever signs in as `nurse-ana` is the subject `nurse-ana` and has the role `nurse`.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const issuer = `http://127.0.0.1:${process.argv[2]}`;

function key(type, options, alg) {
  const jwk = generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' });
  return { ...jwk, kid: randomUUID(), use: 'sig', alg };
}

const provider = new Provider(issuer, {
  jwks: { keys: [key('rsa', { modulusLength: 2048 }, 'RS256'), key('ec', { namedCurve: 'P-256' }, 'ES256')] },
  clients: [{
    client_id: 'medrec-test',
    client_secret: 'of no use outside this test',
    redirect_uris: ['https://client.example/callback'],
  }],
  cookies: { keys: [randomUUID()] },
  pkce: { required: () => false },
  ttl: { AccessToken: 600, Grant: 600, IdToken: 600, Interaction: 600, Session: 600 },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  extraTokenClaims: (ctx, token) => ({
    roles: [token.accountId.split('-')[0], 'a role of another system'],
    auth_time: ctx.oidc.entities.AuthorizationCode?.authTime,
  }),
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:medrec:api',
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'openid',
        audience: 'urn:medrec:api',
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

provider.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('listening'));
