# Sends one message with Net::SMTP, line by line as its manual has it.  Reads on standard input, a
# line each: port, "implicit" or "starttls", the file of the authority, mechanism, user, secret,
# sender, recipient, and the file of the message as it is to be sent.  Exits with status 1 and the
# server's reply when the message was not sent.
use strict;
use warnings;
use Authen::SASL;
use IO::Socket::SSL;
use Net::SMTP;

chomp(my ($port, $tls, $authority, $mechanism, $user, $secret, $from, $to, $file) = <STDIN>);

my @verified = (SSL_ca_file => $authority, SSL_verifycn_name => 'localhost');
my $smtp = Net::SMTP->new(
    '127.0.0.1',
    Port => $port,
    Hello => 'client.example.org',
    Timeout => 30,
    $tls eq 'implicit' ? (SSL => 1, @verified) : (),
) or die "not connected: $@\n";

sub said { return $smtp->code . ' ' . $smtp->message . "\n" }

$tls eq 'implicit' or $smtp->starttls(@verified) or die "no TLS: $@\n";
my %login = (user => $user, authname => '', pass => $secret);
my $sasl = Authen::SASL->new(mechanism => $mechanism, callback => \%login);
$smtp->auth($sasl) or die said();
$smtp->mail($from) && $smtp->to($to) && $smtp->data or die said();
open my $message, '<:raw', $file or die "$file: $!\n";
while (my $line = <$message>) {
    $smtp->datasend($line) or die said();
}
$smtp->dataend or die said();
$smtp->quit;
