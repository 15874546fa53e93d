# PID 1 of a pod sandbox: reap orphans, exit at once on TERM. p_align 0x1000. Bytes are in ../pause-image.ts.
.intel_syntax noprefix
.globl _start
_start:
  # rt_sigaction(SIGCHLD, &act, NULL, 8)
  push 13
  pop rax
  push 17
  pop rdi
  lea rsi, [rip+act]
  xor edx, edx
  push 8
  pop r10
  syscall
  # rt_sigprocmask(SIG_BLOCK=0, &mask, NULL, 8)
  push 14
  pop rax
  xor edi, edi
  lea rsi, [rip+mask]
  xor edx, edx
  syscall
wait:
  # rt_sigtimedwait(&mask, NULL, NULL, 8)
  mov eax, 128
  lea rdi, [rip+mask]
  xor esi, esi
  xor edx, edx
  syscall
  test eax, eax
  js wait
  mov eax, 231
  xor edi, edi
  syscall
.balign 8
act: .quad 1, 2, 0, 0   # SIG_IGN, SA_NOCLDWAIT, restorer, mask
mask: .quad 0x4006      # INT (bit 1), QUIT (bit 2), TERM (bit 14)
