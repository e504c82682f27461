#!/bin/sh
# Index the documentation of the Python standard library, search it three ways, and measure them: `make demo`.
# Every command that runs is shown first; the index and the runs stay in the folder given (default: demo-output).
set -eu
here=$(dirname "$0")
out=${1:-demo-output}
mkdir -p "$out"

show() {
    printf '\n$'
    for word in "$@"; do
        case $word in
        *[!A-Za-z0-9_./@=-]*) printf ' "%s"' "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf '\n'
    "$@"
}

show python "$here/corpus.py" "$out/corpus"
show retriever index "$out/corpus" "$out/index"
show retriever info "$out/index"
for system in "bm25" "dense" "bm25 + dense >> rrf" "bm25 + dense >> wsum(weights=[0.3, 0.7])"; do
    name=$(printf '%s' "$system" | tr -cs 'a-z0-9.' '-' | sed 's/-*$//')
    show retriever search "$out/index" --queries "$here/queries.jsonl" -k 100 --pipeline "$system" --run "$out/$name.trec"
done
show retriever eval "$out/bm25.trec" "$out/dense.trec" "$out/bm25-dense-rrf.trec" \
    "$out/bm25-dense-wsum-weights-0.3-0.7.trec" --qrels "$here/qrels/test.tsv" -m nDCG@10 -m RR@10 -m R@100
show retriever search "$out/index" "join two file paths" -k 3
show retriever search "$out/index" "run a shell command and capture what it prints" -k 3
show retriever search "$out/index" "sort a list" -k 3 --where "kind = 'method'"
show retriever search "$out/index" '"context manager" +file' -k 3 --pipeline "bm25(syntax=true)"
