// PID 1 of a pod sandbox: reap orphans, exit at once on TERM. p_align 0x10000 for kernels with 64K pages. Bytes are in ../pause-image.ts.
.globl _start
_start:
  mov x8, #134
  mov x0, #17
  adr x1, act
  mov x2, #0
  mov x3, #8
  svc #0
  mov x8, #135
  mov x0, #0
  adr x1, mask
  svc #0
wait:
  mov x8, #137
  adr x0, mask
  mov x1, #0
  svc #0
  tbnz x0, #63, wait
  mov x8, #94
  mov x0, #0
  svc #0
.balign 8
act: .quad 1, 2, 0, 0 // SIG_IGN, SA_NOCLDWAIT, restorer, mask
mask: .quad 0x4006 // INT (bit 1), QUIT (bit 2), TERM (bit 14)
