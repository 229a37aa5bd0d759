// Sends one message with nodemailer.  Reads on standard input, as JSON: "library", where nodemailer
// is; "transport", its options; "envelope"; "file", the message as it is to be sent.  Exits with
// status 1 and the error, with the server's reply in it, when the message was not sent.
'use strict';

const fs = require('node:fs');

const job = JSON.parse(fs.readFileSync(0, 'utf8'));
const nodemailer = require(job.library);

async function main() {
  const transport = nodemailer.createTransport(job.transport);
  try {
    await transport.sendMail({ envelope: job.envelope, raw: fs.readFileSync(job.file) });
  } finally {
    transport.close();
  }
}

main().catch((error) => {
  console.error(`${error.code} ${error.responseCode} ${error.message}`);
  process.exitCode = 1;
});
