# SPDX-License-Identifier: GPL-2.0-or-later
# Writes HEADER (if it changes) with the commit that SOURCE is at, "+" behind it where what is built differs
# from that commit, "" where it is not known.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
if(failed)
  set(commit "")
else()
  execute_process(COMMAND git -C ${SOURCE} status --porcelain --untracked-files=no -- oracle harness
                  kvm-runner native-runner unicorn-runner fuzz OUTPUT_VARIABLE dirty ERROR_QUIET)
  if(dirty)
    string(APPEND commit "+")
  endif()
endif()
set(text "#define FPSWAP_COMMIT \"${commit}\"\n")
set(old "")
if(EXISTS ${HEADER})
  file(READ ${HEADER} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${HEADER} "${text}")
endif()
