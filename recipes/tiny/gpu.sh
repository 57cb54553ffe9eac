#!/usr/bin/env bash
# Trains a stage of tiny on a lent GPU machine: bare, with torch and transformers but no diffusers, for some minutes.
#
#   recipes/tiny/gpu.sh aside [STAGE]          at home: moves shipped weights that no stage there needs out of the tree
#   recipes/tiny/gpu.sh back                   at home: puts them back
#   recipes/tiny/gpu.sh wheels                 at home: fetches the wheels to carry into .whl (6.5 MB)
#   recipes/tiny/gpu.sh speed MINUTES          there: pictures that toybox draws a second, on the GPU and on one core
#   recipes/tiny/gpu.sh autoencoder MINUTES    there: renders beside it, trains both halves, then sharpens the decoder
#   recipes/tiny/gpu.sh diffusion MINUTES      there: renders, encodes and answers beside it, again and again
#   recipes/tiny/gpu.sh upscaler MINUTES       there: renders at 512 pixels beside it
#   recipes/tiny/gpu.sh all MINUTES            there: autoencoder, diffusion, then control and upscaler side by side
#   recipes/tiny/gpu.sh collect FOLDER         at home: makes checkpoints in runs/tiny of what came back
#
# A stage begins with the weights that `python -m recipes.tiny.carry pack` put into runs/tiny/carried, if they came
# along, and ends within its minutes, all of it counted; what it made lies in $OUT in files of at most 15 MiB.
# In the environment: PYTHON, DEVICE (cuda if there is one), WORKERS (all cores), WHEELS (.whl), FAMILIES (as many as
# there is time for), RESERVE (seconds kept for packing), BATCH, LOOK.
set -euo pipefail
cd "$(dirname "$0")/../.."
begun=$(date +%s)
what=${1:-help}
minutes=${2:-}
python=${PYTHON:-python3}
wheels=${WHEELS:-.whl}
work=${POPS_TINY_WORK:-runs/tiny}
shipped=src/pops/models/tiny
aside=runs/tiny/aside
export POPS_TINY_WORK=$work PYTHONPATH=src:.${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
export TOKENIZERS_PARALLELISM=false DIFFUSERS_VERBOSITY=error

say() { echo "[$(($(date +%s) - begun)) s] $*"; }
recipe() { "$python" -m "recipes.tiny.$@"; }
left() { # the minutes left for $1 parts of 100 of what is not reserved
    awk -v s="$(($(date +%s) - begun))" -v m="$minutes" -v r="$reserve" -v p="${1:-100}" \
        'BEGIN { v = (m * 60 - s - r) / 60 * p / 100; printf "%.3f", (v > 0.02 ? v : 0.02) }'
}
until_time() { awk -v n="$(date +%s)" -v m="$(left "${1:-100}")" 'BEGIN { printf "%.1f", n + m * 60 }'; }
seconds() { awk -v m="$(left "${1:-100}")" 'BEGIN { printf "%d", m * 60 }'; }

case $what in
aside)
    parts="renderer/text_encoder renderer/unet renderer/ip_adapter renderer/controlnets depth_estimator"
    [ "${2:-}" = diffusion ] && parts="renderer/text_encoder renderer/controlnets depth_estimator" # from shipped UNet
    [ "${2:-}" = upscaler ] && parts="$parts prior operators"
    [ "${2:-}" = all ] && parts="renderer/text_encoder"
    for part in $parts; do
        [ -e "$shipped/$part" ] || continue
        mkdir -p "$(dirname "$aside/$part")"
        mv "$shipped/$part" "$aside/$part"
        say "$shipped/$part => $aside/$part"
    done
    exit ;;
back)
    for part in renderer/text_encoder renderer/unet renderer/ip_adapter renderer/controlnets depth_estimator prior operators; do
        [ -e "$aside/$part" ] || continue
        mv "$aside/$part" "$shipped/$part"
        say "$aside/$part => $shipped/$part"
    done
    exit ;;
wheels)
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 -d "$wheels" \
        diffusers==0.42.1 importlib_metadata lark
    ls -l "$wheels"
    exit ;;
collect)
    recipe carry collect "${2:?usage: gpu.sh collect FOLDER}"
    exit ;;
speed | autoencoder | diffusion | upscaler | all) : "${minutes:?usage: gpu.sh $what MINUTES}" ;;
*)
    sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//'
    exit 2 ;;
esac

# 1) The missing packages, from the wheels that were carried.
if ! "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('diffusers') is None)"; then
    say "installing the wheels in $wheels"
    "$python" -m pip install -q --no-index --no-deps --no-compile --target /tmp/tiny-site "$wheels"/*.whl
    export PYTHONPATH=$PYTHONPATH:/tmp/tiny-site
fi
out=${OUT:-$work/out}
device=${DEVICE:-$(nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)}
workers=${WORKERS:-$(nproc)}
families=${FAMILIES:-100000}
reserve=${RESERVE:-30}
threads=$([ "$device" = cpu ] && echo 1 || echo 4)
on="--device $device --threads $threads"
renderer= encoder=
mkdir -p "$out" "$work"
trap 'for job in $(jobs -p); do kill $(pgrep -P $job) $job 2>/dev/null || true; done' EXIT
say "$what for $minutes minutes on $device, $workers workers, results in $out"

# 2) What came along.
if compgen -G "$work/carried/*-part-*.safetensors" >/dev/null; then
    recipe carry collect "$work/carried" --anew
fi

render() { # beside the training, at low priority, until the end
    nice -n 15 "$python" -m recipes.tiny.render --families "$families" --workers "$workers" --minutes "$(left)" "$@" \
        >"$work/render.log" 2>&1 &
    renderer=$!
}
training() { # cut short, with what was saved last, if looking at pictures or compiling takes too long
    local end=$((begun + $(awk -v m="$minutes" 'BEGIN { printf "%d", m * 60 }') - 12 - $(date +%s)))
    timeout $((end > 5 ? end : 5)) "$python" -m "recipes.tiny.$@" || say "$1 was cut short ($?)"
}
await() { # a first shard of training pictures of a size, then $2 seconds more
    until [ -e "$work/data-$1/train-00000.safetensors" ]; do
        kill -0 $renderer 2>/dev/null || { cat "$work/render.log" >&2; exit 1; }
        sleep 0.5
    done
    sleep "$2"
    say "rendered: $(tail -n 1 "$work/render.log")"
}
encode() { # all pictures so far into a new folder of their own, which appears when it is whole
    local next=$work/next-$1
    local answers="recipe answers --threads 4 --encoded $next --most ${MOST:-8000}"
    recipe encode $on --captions "${CAPTIONS:-1}" --out "$next" || return
    $answers --device "$device" || $answers --device cpu || say "no answers: going on without"
    mv "$next" "$work/encoded-$1"
    say "encoded-$1: $(tail -n 1 "$work/render.log") rendered"
}

# 3) The stage.
case $what in
speed)
    for size in 128 512; do
        samples=$([ $size = 512 ] && echo 1 || echo 2)
        for where in $device cpu; do
            recipe render --measure "$(awk -v m="$minutes" 'BEGIN { print m * 60 / 6 }')" \
                --size $size --samples "$samples" --device "$where"
        done
    done
    exit ;;
autoencoder)
    export POPS_TINY_SHARD=${POPS_TINY_SHARD:-25}
    render
    await 128 "$(seconds 4)"
    [ "$device" = cpu ] && how="--batch ${BATCH:-16}" || how="--batch ${BATCH:-128} --lr 1.5e-3"
    training autoencoder $on $how --follow --until "$(until_time 60)" --look "${LOOK:-1000}"
    say "now against a discriminator"
    training autoencoder --sharpen $on $how --follow --until "$(until_time)" --look "${LOOK:-1000}"
    made="decoder" ;;
diffusion)
    export POPS_TINY_SHARD=${POPS_TINY_SHARD:-25}
    first=$(seconds 14)
    render
    await 128 "$first"
    encode 000
    { # what is rendered meanwhile joins at each doubling of the time
        for k in 001 002 003 004; do
            sleep "$first"
            [ "$(seconds)" -gt $((first + 30)) ] || break
            encode $k || break
            first=$((2 * first))
        done
    } &
    encoder=$!
    [ "$device" = cpu ] && how="--batch ${BATCH:-32}" || how="--batch ${BATCH:-512} --lr 1e-3 --ema 0.999"
    training diffusion $on $how --follow --until "$(until_time)" --look "${LOOK:-2000}"
    made="diffusion" ;;
upscaler)
    export POPS_TINY_SHARD=${POPS_TINY_SHARD:-10}
    render --split train --size 512 --samples 1
    await 512 "$(seconds 6)"
    [ "$device" = cpu ] && how="--batch ${BATCH:-8}" || how="--batch ${BATCH:-64} --lr 5e-4"
    training upscaler $on $how --follow --until "$(until_time)" --look "${LOOK:-1000}"
    made="upscaler" ;;
all)
    # Shares of the time: autoencoder 27 %, diffusion 56 %, the rest for what stands on it. What compiles does so early.
    export POPS_TINY_SHARD=${POPS_TINY_SHARD:-25}
    rm -rf "$work"/encoded-* "$work"/next-* "$work/poses.safetensors"
    first=$(until_time 27) second=$(until_time 83) last=$(until_time)
    all=$workers
    workers=$((all > 4 ? all - 4 : all))
    render --minutes "$(left 70)"
    { # what the last two stages learn on
        few="nice -n 15 $python -m recipes.tiny" some="--workers $((all > 4 ? 3 : 1))"
        $few.poses --seeds "${POSES:-2000}" $some
        $few.render --split train --families "${LARGE:-150}" --size 512 --samples 1 $some
    } >"$work/early.log" 2>&1 &
    early=$!
    [ "$device" = cpu ] && batch=32 || batch=512
    training diffusion $on --batch "${BATCH:-$batch}" --lr 1e-3 --ema 0.999 --follow --until "$second" \
        --look "${LOOK:-4000}" &
    diffusion=$!
    await 128 1
    [ "$device" = cpu ] && batch=16 || batch=512
    training autoencoder $on --batch "${BATCH:-$batch}" --lr 1.5e-3 --follow --until "$first" --look "${LOOK:-4000}"
    recipe carry pack autoencoder --out "$out" &
    encode 000
    {
        for k in 001 002; do
            sleep "$(seconds 12)"
            [ "$(date +%s)" -lt "$(awk -v s="$second" 'BEGIN { printf "%d", s - 60 }')" ] || break
            encode $k || break
        done
    } &
    encoder=$!
    wait $diffusion
    kill $encoder 2>/dev/null || true
    recipe carry pack diffusion --out "$out"
    wait $early || true
    say "drawn for the last stages: $(tail -n 1 "$work/early.log")"
    [ "$device" = cpu ] && batch=8 || batch=256
    training control $on --batch "${BATCH:-$batch}" --lr 8e-4 --begin $shipped/renderer/controlnets/depth \
        --until "$last" &
    control=$!
    [ "$device" = cpu ] && batch=8 || batch=64
    training upscaler $on --batch "${BATCH:-$batch}" --lr 5e-4 --adversarial 0.02 --until "$last" --look "${LOOK:-1000}"
    wait $control
    made="autoencoder diffusion control upscaler" ;;
esac
say "rendered in all: $(tail -n 1 "$work/render.log")"

# 4) Home.
recipe carry pack $made --out "$out"
(cd "$out" && find . -name '*-grid.jpg' -o -name '*-log.txt' | tar cf about.tar -T - --remove-files) # eight files at most
ls -l "$out"
say "done"
