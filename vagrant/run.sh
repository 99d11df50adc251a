#!/bin/sh
# Installs rsttrace's wheel on Vagrant machines, runs the lab tests there, and summarises.
#
#   ./run.sh [MACHINE…]     all of them by default; KEEP=1 leaves them running
#
# Exit code: 0 if all machines passed.
set -eu
cd "$(dirname "$0")"

command -v vagrant >/dev/null || {
	echo "run.sh: vagrant is not installed (Debian, Ubuntu, Fedora: the package vagrant)" >&2
	exit 1
}
[ $# -gt 0 ] || set -- $(sed -n 's/^  "\([a-z0-9]*\)" => .*/\1/p' Vagrantfile)

rm -rf dist
python3 -m pip wheel --quiet --no-deps --wheel-dir dist ..

# The tests alone, beside the wheel: not the checkout's own package.
TESTS='set -eu
cd /rsttrace
sh vagrant/provision.sh install vagrant/dist/rsttrace-*.whl "pytest>=8,<10" "jsonschema>=4.17,<5"
rm -rf /tmp/rsttrace-tests
mkdir /tmp/rsttrace-tests
cp -r tests pyproject.toml /tmp/rsttrace-tests
cd /tmp/rsttrace-tests
uname -r
CI=1 python3 -m pytest -q -p no:cacheprovider tests/lab'

failed=0
summary=
for machine; do
	log="dist/$machine.log"
	echo "== $machine (log: vagrant/$log)"
	if vagrant up "$machine" >"$log" 2>&1 &&
		vagrant rsync "$machine" >>"$log" 2>&1 &&
		vagrant ssh "$machine" -c "sudo sh -c '$TESTS'" >>"$log" 2>&1; then
		verdict=passed
	else
		verdict=FAILED
		failed=1
		tail -n 30 "$log"
	fi
	words=$(grep -E '^[0-9]+ (passed|failed)|(passed|failed).* in [0-9]' "$log" | tail -n 1 || true)
	summary="$summary$(printf '%-12s %-7s %s' "$machine" "$verdict" "${words:-no test ran}")
"
	[ -n "${KEEP-}" ] || vagrant destroy -f "$machine" >>"$log" 2>&1 || true
done
printf '\n%s' "$summary"
exit $failed
