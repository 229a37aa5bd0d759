"""Makes ``environment:VARIABLE`` known to Twisted, and so to submitd."""

from twisted.cred.credentials import IUsernamePassword

from submitd.checkers.factory import CheckerFactory

environment = CheckerFactory(
    authType="environment",
    checker="environment:EnvironmentChecker",
    argStringFormat="the name of an environment variable that holds name:password",
    authHelp="One login, given in the environment of the process.",
    credentialInterfaces=(IUsernamePassword,),
)
