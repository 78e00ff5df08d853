"""What is counted in the texts of compilers, on small ones written by hand."""

from experiments.benchmarks import hlo

TPU = """\
HloModule jit_f, is_scheduled=true

%fused (p: f32[8,16]) -> f32[8,16] {
  ROOT %p = f32[8,16]{1,0:T(8,128)S(1)} parameter(0)
}

%inner (q: (s32[])) -> (s32[]) {
  %q = (s32[]{:T(128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %t.2 = (s32[]{:T(128)}) tuple(%i.2)
}

%body.1 (arg: (s32[], f32[8,4], bf16[4,16], bf16[16,4], f32[4,16])) -> (s32[]) {
  %arg = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)S(1)}, /*index=2*/bf16[4,16]{1,0}) \
parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %h = f32[8,4]{1,0:T(8,128)S(1)} get-tuple-element(%arg), index=1
  %w = bf16[4,16]{1,0:T(8,128)(2,1)S(1)} get-tuple-element(%arg), index=2
  %w.t = bf16[16,4]{1,0:T(8,128)(2,1)} get-tuple-element(%arg), index=3
  %dw = f32[4,16]{1,0:T(8,128)S(1)} get-tuple-element(%arg), index=4
  %copy.1 = f32[8,4]{1,0:T(8,128)S(1)} copy(%h), \
backend_config={"window_config":{"estimated_cycles":"20"}}
  %a = (f32[8,4]{1,0:T(8,128)S(1)}, f32[4,16]{1,0}) fusion(%copy.1, %w, %w.t, %dw), \
kind=kOutput, calls=%fused, backend_config={"window_config":{"estimated_cycles":"384"}}
  %h.new = f32[8,4]{1,0:T(8,128)S(1)} get-tuple-element(%a), index=0
  %dw.new = f32[4,16]{1,0:T(8,128)S(1)} get-tuple-element(%a), index=1
  %cs = (f32[8,4]{1,0:S(1)}, f32[8,4]{1,0}, u32[]{:S(2)}) copy-start(%h.new), \
backend_config={"window_config":{"estimated_cycles":"1200"}}
  %ar = f32[] all-reduce(%i), to_apply=%fused
  %call = f32[8,4]{1,0} custom-call(%h), custom_call_target="tpu_custom_call"
  %n = (s32[]{:T(128)}) while(%i), condition=%c, body=%inner
  ROOT %t = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)S(1)}) \
tuple(%i, %h.new, %w, %w.t, /*index=4*/%dw.new)
}

ENTRY %main.1 (x: f32[8,4]) -> f32[8,4] {
  %x = f32[8,4]{1,0:T(8,128)} parameter(0)
  %all = f32[] all-reduce-start(%x), to_apply=%fused
  ROOT %w.1 = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)S(1)}) while(%x), condition=%c, \
body=%body.1, backend_config={"known_trip_count":{"n":"28"}}
}
"""

# A loop that the host runs, around one that it runs; then one in a command buffer.
THUNKS = """\
000: kCommandBuffer [source       | next=006 (1)]
    001: kCustomKernel [source       | sink        ] loop_broadcast_fusion
006: kWhile         [prev=000 (1) | next=030 (1)]
condition:
    007: kCustomKernel [source | sink] loop_compare_fusion
  body:
    008: kDynamicSliceFusion [source       | next=010 (1)] params=1
        009: kCopy [source | sink] kCopy
    010: kWhile              [prev=008 (1) | next=011 (1)]
condition:
        011: kCustomKernel [source | sink] loop_compare_fusion
      body:
        012: kCustomKernel [source | sink] loop_add_fusion
    000: kCommandBuffer      [prev=018 (1) | sink        ]
        020: kCustomKernel [source       | next=029 (9)] loop_fusion_2
        021: kCustomKernel [source       | next=029 (8)] loop_fusion
000: kCommandBuffer [source | sink]
    030: kWhile        [prev=005 (1) | next=024 (1)]
condition:
        031: kCustomKernel [source | sink] loop_compare_fusion
      body:
        032: kCustomKernel [source | sink] loop_add_fusion
"""


def test_what_a_loop_does():
    outer, inner = hlo.loops(TPU, [(4, 16)])
    assert (outer.depth, outer.trips, inner.depth, inner.trips) == (0, 28, 1, None)
    assert (outer.fusions, outer.copies, outer.all_reduces) == (1, 2, 1)
    assert outer.custom_calls == ("tpu_custom_call",)
    assert (outer.cycles, outer.longest_copy) == (1604, 1200)
    # `dw` has the shape of the weights, and is another array after each step.
    assert (outer.weights, outer.weights_in_vmem) == (2, 1)
    assert (inner.fusions, inner.copies, inner.weights) == (0, 0, 0)
    assert hlo.all_reduces(TPU) == 2


def test_a_program_without_loops():
    assert hlo.loops("ENTRY %main (x: f32[]) -> f32[] {\n}\n") == []


def test_where_the_loops_of_a_gpu_run():
    loops = hlo.loops(TPU)
    assert hlo.captured(THUNKS, loops) == loops  # two are not three
    outer, inner, last = hlo.captured(THUNKS, [*loops, loops[0]])
    assert (outer.on_host, outer.launches) == (True, 3)
    assert (inner.on_host, inner.launches) == (True, 1)
    assert (last.on_host, last.launches) == (False, None)
