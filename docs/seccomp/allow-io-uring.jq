# Adds io_uring to a seccomp profile of a container engine; prints the new profile.
#
#   jq -f allow-io-uring.jq default.json > with-io-uring.json
#
# The three calls leave every other rule and get one of their own. All else stays as it is, and a
# profile that has been through this comes out the same.

["io_uring_setup", "io_uring_enter", "io_uring_register"] as $calls
| if (type == "object") and (.syscalls | type == "array") then .
  else error("this is no seccomp profile: it has no list named syscalls")
  end
| .syscalls |= map(
    # Old profiles have one name in each rule.
    select(.name as $name | ($calls | index($name)) == null)
    | if has("names") then .names -= $calls else . end
    | select(.names != [])
  )
| .syscalls += [{ "names": $calls, "action": "SCMP_ACT_ALLOW" }]
