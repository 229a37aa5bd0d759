// smtp-server (npm) as a peer: node with_smtpserver.cjs tls|plain CERTIFICATE KEY USER PASSWORD
//
// Reads each message and answers 250.  Prints "ready PORT", and at SIGUSR2 "accepted MESSAGES OCTETS".
"use strict";
const fs = require("fs");
const { SMTPServer } = require("smtp-server");

const [mode, certificate, key, user, password] = process.argv.slice(2);
const tls = mode === "tls";
let messages = 0;
let octets = 0;

const server = new SMTPServer({
  secure: tls,
  cert: fs.readFileSync(certificate),
  key: fs.readFileSync(key),
  authOptional: !tls,
  // What would ask the network, or is not asked of the others.
  disableReverseLookup: !process.env.LOOK_NAMES_UP,
  disabledCommands: tls ? ["STARTTLS"] : ["STARTTLS", "AUTH"],
  onAuth(auth, session, callback) {
    if (auth.username === user && auth.password === password) {
      callback(null, { user });
    } else {
      callback(new Error("wrong"));
    }
  },
  onData(stream, session, callback) {
    stream.on("data", (chunk) => {
      octets += chunk.length;
    });
    stream.on("end", () => {
      messages += 1;
      callback();
    });
  },
});
// A client that is gone is no reason to end.
server.on("error", () => {});
process.on("SIGUSR2", () => fs.writeSync(1, `accepted ${messages} ${octets}\n`));
server.listen(0, "127.0.0.1", () => fs.writeSync(1, `ready ${server.server.address().port}\n`));
