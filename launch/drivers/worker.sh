#!/bin/bash
# What every worker of the job @NAME@ runs: bash @NAME@.sh start|poll|stop ATTEMPT
# Where it stands is said on a line that begins with "recattn:".
set -u
verb=$1 attempt=$2
here=$HOME/recattn-jobs/@NAME@/$attempt

work() {
  cd -- "$HOME" && cd -- @DIRECTORY@ || exit 2
  mkdir -p -- @FOLDER@ || exit 4
  exec >> @FOLDER@/"process-$(hostname).log" 2>&1 || exit 4
  echo "== attempt $attempt, $(date)"
  if [ -e "$HOME/@NAME@-setup.sh" ]; then
    bash "$HOME/@NAME@-setup.sh" || exit 1
  fi
  @EXPORT@
  exec @ARGV@
}

# The number of a process may have been given to another since.
alive() {
  [ -e "$here/pid" ] && tr '\0' ' ' 2> /dev/null < "/proc/$(cat "$here/pid")/cmdline" |
    grep -qF -- "@NAME@.sh run $attempt "
}

case $verb in
  start)
    mkdir -p "$HOME/recattn-jobs/@NAME@"
    if mkdir "$here" 2> /dev/null; then # once for each attempt
      setsid bash "$0" run "$attempt" > "$here/log" 2>&1 < /dev/null &
      echo $! > "$here/pid"
    fi
    ;;
  run)
    early='' asked=1
    trap early=1 TERM
    work &
    child=$!
    trap 'asked=1; kill -TERM "$child"' TERM
    [ -z "$early" ] || kill -TERM "$child" # asked before there was anyone to tell
    while [ -n "$asked" ]; do # again where it was the signal that ended the waiting
      asked=''
      wait "$child"
      code=$?
    done
    echo "$code" > "$here/exit.partial"
    mv "$here/exit.partial" "$here/exit"
    ;;
  poll)
    if [ ! -d "$here" ]; then
      echo "recattn: absent"
    elif alive; then # asked first: who is gone by now has written how it ended
      echo "recattn: running"
    elif [ -e "$here/exit" ]; then
      echo "recattn: exit $(cat "$here/exit")"
    else
      echo "recattn: lost"
    fi
    ;;
  stop)
    if alive; then
      leader=$(cat "$here/pid")
      kill -TERM "$leader"
      if mkdir "$here/stopping" 2> /dev/null; then
        setsid bash -c 'sleep "$1"; [ -e "$2" ] || kill -KILL -- "-$3"' later \
          @GRACE@ "$here/exit" "$leader" > /dev/null 2>&1 < /dev/null &
      fi
    fi
    ;;
esac
