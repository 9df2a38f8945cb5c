#!/usr/bin/env bash
# The text of WMT14 English-German: europarl v7, commoncrawl and news-commentary v9 for training, newstest2013 for
# validation, newstest2014 (all 3,003 sentences) for test.
#
#   bash examples/wmt14_en_de/download.sh --out DIR [OPTIONS]
#
#   --out DIR      archives/ and text/ go there, 1.7 GB and 2.4 GB; run again, it goes on where it was stopped
#   --source DIR   take the archives from this folder instead of downloading them
#   --released     also fairseq's released WMT16 English-German Transformer, into released/
#   --mirror URL   download from there instead of https://www.statmt.org and https://dl.fbaipublicfiles.com
#   --unverified   take archives of the same layout that are not the published ones, a sample of them say
#
# An archive must be whole, and have the published checksum where one is known; the text must have the published number
# of lines.

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/common.sh"

STATMT=https://www.statmt.org RELEASES=https://dl.fbaipublicfiles.com
ARCHIVES=( # server, place there, checksum; those of the test sets as sacreBLEU has them
    STATMT wmt13/training-parallel-europarl-v7.tgz
    sha256:0224c7c710c8a063dfd893b0cc0830202d61f4c75c17eb8e31836103d27d96e7
    STATMT wmt13/training-parallel-commoncrawl.tgz
    sha256:c7a74e2ea01ac6c920123108627e35278d4ccb5701e15428ffa34de86fa3a9e5
    STATMT wmt14/training-parallel-nc-v9.tgz unknown
    STATMT wmt13/test.tgz md5:48eca5d02f637af44e85186847141f67
    STATMT wmt14/test-full.tgz md5:a8cd784e006feb32ac6f3d9ec7eb389a
)
MODEL=wmt16.en-de.joined-dict.transformer
CORPORA=( # archive, member without the language, lines
    training-parallel-europarl-v7.tgz training/europarl-v7.de-en 1920209
    training-parallel-commoncrawl.tgz commoncrawl.de-en 2399123
    training-parallel-nc-v9.tgz training/news-commentary-v9.de-en 201288
)

OUT='' SOURCE='' MIRROR='' RELEASED='' UNVERIFIED=''
options "--out --source --mirror" "--released --unverified" "$@"
[ ${#FLAGS[@]} = 0 ] || fail "${FLAGS[0]} stands after --, but this recipe takes nothing there"
[ -n "$OUT" ] || fail "--out is needed; see --help"
[ -z "$SOURCE" ] || [ -d "$SOURCE" ] || fail "--source is $SOURCE, but there is no such folder"
needed=(tar gzip)
[ -n "$SOURCE" ] || needed+=(curl)
[ -z "$RELEASED" ] || needed+=(bzip2)
for program in "${needed[@]}"; do
    command -v "$program" >/dev/null || fail "there is no $program here: install it"
done
environment
mkdir -p "$OUT/done" || fail "--out is $OUT, but that folder cannot be made"
if command -v flock >/dev/null; then
    exec 8>"$OUT/lock"
    flock --nonblock 8 || fail "--out is $OUT, but another download is working there"
fi
settings="$(printf '%s\n' "source $SOURCE" "mirror $MIRROR" "released $RELEASED" "unverified $UNVERIFIED")"
[ ! -f "$OUT/settings" ] || [ "$(cat "$OUT/settings")" = "$settings" ] ||
    fail "--out is $OUT, which was made with other options ($OUT/settings): choose another folder"

STAGE=''
trap '[ $? = 0 ] || [ -z "$STAGE" ] || say "stage $STAGE failed; run again to resume"' EXIT
stage() { # stage NAME COMMAND...: once. Never call it in a condition: set -e would be off in all that it runs
    [ ! -f "$OUT/done/$1" ] || return 0
    STAGE="$1"
    "${@:2}"
    printf '%s\n' "$settings" >"$OUT/settings"
    touch "$OUT/done/$1"
    STAGE=''
}

mkdir -p "$OUT/archives" "$OUT/text"
[ -z "$RELEASED" ] || ARCHIVES+=(RELEASES "fairseq/models/$MODEL.tar.bz2" unknown)

# reason_against FILE CHECKSUM: REPLY says why the archive is not to be taken; empty where it is
reason_against() {
    local unpack=gzip found=''
    [[ "$1" != *.bz2?(.partial) ]] || unpack=bzip2
    REPLY=''
    if ! "$unpack" -t "$1" 2>/dev/null; then
        REPLY="is cut off or damaged"
    elif [ "$2" != unknown ] && [ -z "$UNVERIFIED" ]; then
        found="$(python -c 'import hashlib, sys
with open(sys.argv[2], "rb") as file:
    digest = hashlib.new(sys.argv[1])
    while block := file.read(2**20):
        digest.update(block)
    print(digest.hexdigest())' "${2%%:*}" "$1")"
        [ "$found" = "${2#*:}" ] || REPLY="is not the published one (${2%%:*} $found)"
    fi
}

take() { # take NAME CHECKSUM: from --source
    [ -f "$SOURCE/$1" ] || fail "--source is $SOURCE, but $1 is missing there"
    reason_against "$SOURCE/$1" "$2"
    [ -z "$REPLY" ] || fail "$SOURCE/$1 $REPLY"
    ln -sf "$(cd "$SOURCE" && pwd -P)/$1" "$OUT/archives/$1"
}

fetch() { # fetch URL CHECKSUM: goes on with a part, unless that is the whole already
    local name part status=0
    name="$(basename "$1")" part="$OUT/archives/$(basename "$1").partial"
    if [ -s "$part" ]; then reason_against "$part" "$2"; fi
    if [ ! -s "$part" ] || [ -n "$REPLY" ]; then
        say "downloading $name"
        curl --fail --location --retry 3 --continue-at - --progress-bar --output "$part" "$1" || status=$?
        [ $status = 0 ] || fail "$name could not be downloaded from $1 (curl ended with status $status)"
        reason_against "$part" "$2"
        if [ -n "$REPLY" ]; then
            rm "$part"
            fail "$name $REPLY, as it came from $1"
        fi
    fi
    mv "$part" "$OUT/archives/$name"
}

member() { # member ARCHIVE NAME: to stdout
    tar -xzOf "$OUT/archives/$1" "$2" || fail "$1 has no $2: it is not the archive of WMT14"
}

counted() { # counted FILE LINES WHERE: has that many lines
    local lines
    lines="$(wc -l <"$1")"
    [ -n "$UNVERIFIED" ] || [ "$lines" = "$2" ] || fail "$3 has $lines lines, but $2 were published"
}

training_text() {
    local language number corpus
    for language in en de; do
        : >"$OUT/text/train.$language.partial"
        for ((number = 0; number < ${#CORPORA[@]}; number += 3)); do
            corpus="${CORPORA[*]:number+1:1}.$language"
            say "unpacking $corpus"
            # with a line end where the last line of a corpus has none
            member "${CORPORA[number]}" "$corpus" | sed '$a\' >"$OUT/text/corpus.$language.partial"
            counted "$OUT/text/corpus.$language.partial" "${CORPORA[number + 2]}" "$corpus"
            if [ "$language" = en ]; then
                wc -l <"$OUT/text/corpus.en.partial" >"$OUT/text/lines$number.partial"
            elif ! wc -l <"$OUT/text/corpus.de.partial" | cmp -s - "$OUT/text/lines$number.partial"; then
                fail "$corpus has another number of lines than its English side"
            fi
            cat "$OUT/text/corpus.$language.partial" >>"$OUT/text/train.$language.partial"
        done
        mv "$OUT/text/train.$language.partial" "$OUT/text/train.$language"
    done
    rm "$OUT"/text/*.partial
}

test_set() { # test_set NAME LINES ARCHIVE MEMBER-EN MEMBER-DE: the segments of an SGML file, as sacreBLEU reads them
    local language members=("${@:4}")
    for language in en de; do
        member "$3" "${members[0]}" | python -X utf8 -c 'import re, sys
for line in sys.stdin:
    if segment := re.match("<seg [^>]*>(.*)</seg>", line):
        print(*segment.group(1).split())' >"$OUT/text/$1.$language.partial"
        counted "$OUT/text/$1.$language.partial" "$2" "$1.$language"
        mv "$OUT/text/$1.$language.partial" "$OUT/text/$1.$language"
        members=("${members[@]:1}")
    done
}

released() {
    local partial="$OUT/released.partial"
    rm -rf "$partial" "$OUT/released"
    mkdir "$partial"
    tar -xjf "$OUT/archives/$MODEL.tar.bz2" -C "$partial" --strip-components 1
    for name in model.pt dict.en.txt dict.de.txt bpecodes; do
        [ -f "$partial/$name" ] || fail "$MODEL.tar.bz2 has no $name: it is not fairseq's archive"
    done
    mv "$partial" "$OUT/released"
}

for ((number = 0; number < ${#ARCHIVES[@]}; number += 3)); do
    server="${ARCHIVES[number]}" place="${ARCHIVES[number + 1]}" checksum="${ARCHIVES[number + 2]}"
    name="$(basename "$place")"
    if [ -n "$SOURCE" ]; then
        stage "archive-$name" take "$name" "$checksum"
    else
        stage "archive-$name" fetch "${MIRROR:-${!server}}/$place" "$checksum"
    fi
done
stage train training_text
stage newstest2013 test_set newstest2013 3000 test.tgz test/newstest2013-src.{en,de}.sgm
stage newstest2014 test_set newstest2014 3003 test-full.tgz \
    test-full/newstest2014-deen-src.en.sgm test-full/newstest2014-deen-ref.de.sgm
[ -z "$RELEASED" ] || stage released released
say "the text is $OUT/text"
