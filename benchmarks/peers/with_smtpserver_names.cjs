// smtp-server (npm) as it ships: the name of each client is looked up.  Used as with_smtpserver.cjs.
"use strict";
process.env.LOOK_NAMES_UP = "yes";
require("./with_smtpserver.cjs");
