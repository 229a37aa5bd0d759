// A server made with smtp-server.  fromnode.py is the same with submitd.
//
//     node fromnode.cjs 2587 certificate.pem private_key.pem
const fs = require("node:fs");
const { SMTPServer } = require("smtp-server");

const users = { alice: { password: "secret123", email: "alice@example.com" } };
const kept = [];

function refusal(code, text) {
  return Object.assign(new Error(text), { responseCode: code });
}

const [port, cert, key] = process.argv.slice(2);
const server = new SMTPServer({
  name: "mail.example.com",
  banner: "Welcome",
  disableReverseLookup: true,
  authMethods: ["PLAIN", "LOGIN", "CRAM-MD5"],
  size: 100000,
  cert: fs.readFileSync(cert),
  key: fs.readFileSync(key),

  async onAuth(auth, session, callback) {
    console.log(`${auth.method} from ${session.remoteAddress}`);
    const user = users[auth.username];
    const matches =
      user &&
      (auth.method === "CRAM-MD5"
        ? auth.validatePassword(user.password)
        : auth.password === user.password);
    if (!matches) return callback(refusal(535, "Invalid username or password"));
    callback(null, { user: { username: auth.username, email: user.email } });
  },

  onMailFrom(address, session, callback) {
    if (address.address !== session.user.email)
      return callback(refusal(553, "You can only send from your own address"));
    callback();
  },

  onRcptTo(address, session, callback) {
    if (address.address.startsWith("nobody@")) return callback(refusal(550, "No such user"));
    callback();
  },

  onData(stream, session, callback) {
    const chunks = [];
    stream.on("data", (chunk) => chunks.push(chunk));
    stream.on("end", () => {
      const text = Buffer.concat(chunks);
      if (stream.sizeExceeded) return callback(refusal(552, "Message too large"));
      if (text.includes("SPAM")) return callback(refusal(550, "Spam detected"));
      kept.push({ user: session.user.username, to: session.envelope.rcptTo, text });
      callback(null, `Kept as number ${kept.length}`);
    });
  },

  onClose(session) {
    console.log(`${session.remoteAddress} is gone`);
  },
});

server.listen(Number(port), "127.0.0.1");
