#include "go_asm.h"
#include "textflag.h"

// func clone3(args *cloneArgs, size uintptr, first *call, count uintptr, failed *uint32) (pid uintptr)
//
// The new process has its own stack, of which it uses nothing, and no g: from its
// first instruction on it makes the calls, and then ends.
TEXT ·clone3(SB),NOSPLIT,$0-48
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	first+16(FP), R12
	MOVQ	count+24(FP), R13
	MOVQ	failed+32(FP), BX
	MOVQ	$435, AX	// clone3
	SYSCALL
	TESTQ	AX, AX
	JEQ	next
	MOVQ	AX, pid+40(FP)
	RET

next:
	TESTQ	R13, R13
	JEQ	end
	MOVQ	call_number(R12), AX
	MOVQ	(call_args+0)(R12), DI
	MOVQ	(call_args+8)(R12), SI
	MOVQ	(call_args+16)(R12), DX
	MOVQ	(call_args+24)(R12), R10
	MOVQ	(call_args+32)(R12), R8
	MOVQ	$0, R9
	SYSCALL
	CMPQ	AX, $0xfffffffffffff001
	JCC	error
	CMPQ	AX, call_least(R12)
	JCS	short
	ADDQ	$call__size, R12
	DECQ	R13
	JMP	next

short:
	MOVQ	$-5, AX	// EIO
error:
	NEGQ	AX
	MOVL	AX, (BX)
end:
	MOVQ	$127, DI
	MOVQ	$231, AX	// exit_group
	SYSCALL
	JMP	end
