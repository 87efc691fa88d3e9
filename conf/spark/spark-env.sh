# shellcheck shell=bash
# Java takes the names of files for text of the locale: in one that is not UTF-8 it cannot reach a folder such as `größe`.
case ${LC_ALL:-${LC_CTYPE:-$LANG}} in
*[Uu][Tt][Ff]-8 | *[Uu][Tt][Ff]8) ;;
*) export LC_ALL=C.UTF-8 ;;
esac
