# service-manager.pl DIRECTORY COMMAND...: does what systemd does for a service with sockets. Perl has datagram sockets,
# which Node has not. Commands come on stdin, a line each: start, stop, kill. What happens goes to stdout:
#   listening HTTP-PORT DNS-PORT | started PID | ended STATUS | notify LINE|LINE | journal BYTES-IN-HEX
use strict;
use warnings;
use POSIX ();
use Socket;
$| = 1;
my ($directory, @command) = @ARGV;

sub bound { # TYPE PORT
  my ($type, $port) = @_;
  socket(my $socket, PF_INET, $type, 0) or die $!;
  setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1) if $type == SOCK_STREAM;
  bind($socket, pack_sockaddr_in($port, INADDR_LOOPBACK)) or die $!;
  listen($socket, 128) if $type == SOCK_STREAM;
  return $socket;
}
sub port_of { (unpack_sockaddr_in(getsockname($_[0])))[0] }

my $http = bound(SOCK_STREAM, 0);
my ($udp, $tcp);
# Others may have one of the two.
until ($tcp) {
  $udp = bound(SOCK_DGRAM, 0);
  $tcp = eval { bound(SOCK_STREAM, port_of($udp)) };
}
socket(my $notify, PF_UNIX, SOCK_DGRAM, 0) or die $!;
bind($notify, pack_sockaddr_un("$directory/notify")) or die $!;
print "listening ", port_of($http), " ", port_of($udp), "\n";

my $pid;
sub start {
  $pid = fork();
  if ($pid == 0) {
    # Out of the way first: a target may be what another one is copied from.
    my @high = map { fcntl($_, POSIX::F_DUPFD(), 20) } ($http, $udp, $tcp);
    POSIX::dup2($high[$_], 3 + $_) for 0 .. 2;
    POSIX::close($_) for 6 .. 40;
    @ENV{qw(NOTIFY_SOCKET LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ("$directory/notify", $$, 3, "http:dns:dns");
    @ENV{qw(HTTP_PORT DNS_PORT)} = (port_of($http), port_of($udp));
    open(STDIN, "<", "/dev/null");
    exec @command or die "$command[0]: $!";
  }
  print "started $pid\n";
}
sub end {
  kill $_[0], $pid;
  waitpid $pid, 0;
  print "ended $?\n";
}

my $commands = "";
for (;;) {
  my $ready = "";
  vec($ready, 0, 1) = 1;
  vec($ready, fileno($notify), 1) = 1;
  select($ready, undef, undef, undef);
  if (vec($ready, fileno($notify), 1)) {
    recv($notify, my $text, 65536, 0);
    $text =~ s/\n/|/g;
    print "notify $text\n";
  }
  next unless vec($ready, 0, 1);
  sysread(STDIN, $commands, 4096, length $commands) or last;
  while ($commands =~ s/^(\w+)\n//) {
    if ($1 eq "start") { start() }
    elsif ($1 eq "stop") { end("TERM") }
    elsif ($1 eq "kill") { end("KILL") }
  }
}
end("KILL") if $pid && kill(0, $pid);
