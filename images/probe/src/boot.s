# From the 64-bit Linux entry to ring 3, and everything that runs in ring 0.
#
# Ring 0 may be emulated instruction by instruction (software KVM): it is kept to a few simple
# instructions, no SSE. All real work happens in ring 3, where the page tables (U=1 everywhere) and
# the I/O bitmap (all ports) permit memory and port access as in ring 0. So does the I/O privilege level, which
# software KVM drops: QEMU's emulated processor forgets the bitmap when a machine is restored.
#
# Addresses of gates and task segments are split into pieces in the descriptor tables, which no
# relocation can do, so the linker script puts section .fixed at FIXED and they are constants.

.set FIXED, 0x1000000
.set CPUS, 8
.set STUB_SIZE, 16
.set TSS_AREA, FIXED + 256 * STUB_SIZE
.set IO_BITMAP, 104
.set TSS_SIZE, 8320                     # 104 + 8192 bytes of bitmap + the byte of ones that ends it, rounded up
.set TSS_LIMIT, IO_BITMAP + 8192
.set RING0_STACK, 1024
.set KERNEL_CODE, 0x08
.set USER_DATA, 0x18 + 3
.set USER_CODE, 0x20 + 3
.set TSS_SELECTOR, 0x30
.set TRAMPOLINE, 0x8000
.set LAPIC_EOI, 0xfee000b0
.set RING3_FLAGS, 0x3202                # I/O privilege level 3, interrupts on

# ------------------------------------------------------------------ .fixed
.section .fixed, "awx"

# One stub for each vector, 16 bytes apart.
.set vector, 0
.rept 256
    .balign STUB_SIZE
    .if vector == 3
        jmp service
    .elseif vector == 13
        jmp general_protection
    .elseif vector == 255
        iretq                           # spurious: no end of interrupt
    .elseif vector >= 32
        push vector
        jmp interrupt
    .else
        # Exceptions that push no error code get a zero, so that all frames look alike.
        .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
            push 0
        .endif
        push vector
        jmp fault
    .endif
    .set vector, vector + 1
.endr

.balign STUB_SIZE
# One task segment per processor: its ring-0 stack and a bitmap that permits every port.
.set cpu, 0
.rept CPUS
    .long 0
    .quad ring0_stacks + (cpu + 1) * RING0_STACK
    .fill 102 - 12, 1, 0
    .word IO_BITMAP
    .fill 8192, 1, 0
    .byte 0xff
    .fill TSS_SIZE - TSS_LIMIT - 1, 1, 0
    .set cpu, cpu + 1
.endr

# ------------------------------------------------------------------ tables
.section .data.boot, "aw"
.balign 4096
pml4:
    .quad pdpt + 7
    .fill 511, 8, 0
.globl pdpt
pdpt:                                   # guest memory above 4 GiB is added by memory.rs
    .quad directories + 7, directories + 0x1007, directories + 0x2007, directories + 0x3007
    .fill 508, 8, 0
directories:                            # 4 GiB in pages of 2 MiB: present, writable, user, large
    .set page, 0
    .rept 2048
        .quad page + 0x87
        .set page, page + 0x200000
    .endr

.balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08 ring-0 code, 64 bits
    .quad 0x00cf93000000ffff            # 0x10 ring-0 data
    .quad 0x00cff3000000ffff            # 0x18 ring-3 data
    .quad 0x00affb000000ffff            # 0x20 ring-3 code, 64 bits
    .quad 0                             # 0x28
    .set cpu, 0
    .rept CPUS                          # 0x30 + 16n: task segment of processor n
        .set tss, TSS_AREA + cpu * TSS_SIZE
        .word TSS_LIMIT, tss & 0xffff
        .byte (tss >> 16) & 0xff, 0x89, 0, tss >> 24
        .quad 0
        .set cpu, cpu + 1
    .endr
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt

.balign 16
idt:
    .set vector, 0
    .rept 256
        .set stub, FIXED + vector * STUB_SIZE
        .word stub & 0xffff, KERNEL_CODE
        .byte 0
        .if vector == 3
            .byte 0xee                  # ring 3 may call
        .else
            .byte 0x8e
        .endif
        .word stub >> 16
        .long 0, 0
        .set vector, vector + 1
    .endr
idt_pointer:
    .word 256 * 16 - 1
    .quad idt
no_idt:
    .word 0
    .quad 0

.balign 16
ring0_stacks:
    .fill CPUS * RING0_STACK, 1, 0

.globl processors_started
processors_started:
    .long 1

# What interrupt.rs reads.
.balign 8
.globl interrupt_counts
interrupt_counts:
    .fill 256, 8, 0
.globl woken
woken:                                  # one byte per processor: an interrupt came since it was cleared
    .fill CPUS, 1, 0
.balign 8
.globl fault_words
fault_words:                            # vector, error code, rip, cs, rflags, rsp, cr2, faults so far
    .fill 8, 8, 0

# ------------------------------------------------------------------ entry
.section .text.boot, "ax"
.code64
# rsi = boot_params. No stack is needed until ring 3.
.globl _start
_start:
    cli
    cld
    mov rax, offset pml4
    mov cr3, rax
    mov rsp, offset ring0_stacks + RING0_STACK
    mov r12, offset ring3_start
    mov r13, offset ring3_stack_top
    mov r14, rsi
    xor ebx, ebx

# ebx = processor, r12 = where it goes on in ring 3, r13 = its stack there, r14 = what it finds in rdi.
to_ring3:
    lgdt [rip + gdt_pointer]
    lidt [rip + idt_pointer]
    mov eax, ebx
    shl eax, 4
    add eax, TSS_SELECTOR
    ltr ax
    mov rax, cr4
    or eax, 0x600                       # SSE: OSFXSR, OSXMMEXCPT
    mov cr4, rax
    mov rax, cr0
    and eax, 0xfffffffb                 # EM off
    or eax, 2                           # MP on
    mov cr0, rax
    mov rdi, r14
    push USER_DATA
    push r13
    push RING3_FLAGS
    push USER_CODE
    push r12
    iretq

# Ring 3 of the first processor: clears .bss, in which its stack lies.
ring3_start:
    mov r14, rdi
    mov rdi, offset bss_start
    mov rcx, offset image_end
    sub rcx, rdi
    xor eax, eax
    rep stosb
    mov rdi, r14
    call guest_start
    ud2

# ------------------------------------------------------------------ interrupts and faults
# Stack: vector, then the processor's frame.
interrupt:
    push rax
    push rcx
    mov rcx, [rsp + 16]
    mov rax, offset interrupt_counts
    lock inc qword ptr [rax + rcx * 8]
    str cx
    movzx ecx, cx
    sub ecx, TSS_SELECTOR
    shr ecx, 4
    mov rax, offset woken
    mov byte ptr [rax + rcx], 1
    mov eax, LAPIC_EOI
    mov dword ptr [rax], 0
    pop rcx
    pop rax
    add rsp, 8
    iretq

# Ring 3 executed something privileged. `hlt` means: wait for an interrupt, unless one came since
# this processor's `woken` was cleared. The gate closed interrupts, so none is missed in between.
# Stack: error code, rip, cs, …
general_protection:
    push rax
    push rcx
    test byte ptr [rsp + 32], 3
    jz 9f
    mov rax, [rsp + 24]
    cmp byte ptr [rax], 0xf4
    jne 9f
    inc qword ptr [rsp + 24]
    str cx
    movzx ecx, cx
    sub ecx, TSS_SELECTOR
    shr ecx, 4
    mov rax, offset woken
    cmp byte ptr [rax + rcx], 0
    jne 8f
    sti
    hlt
    cli
8:  pop rcx
    pop rax
    add rsp, 8
    iretq
9:  pop rcx
    pop rax
    push 13

# Stack: vector, error code, rip, cs, rflags, rsp, ss. Goes on in ring 3 with a report, once.
fault:
    mov rax, offset fault_words
    cmp qword ptr [rax + 56], 0
    jne triple_fault
    inc qword ptr [rax + 56]
    .irp field, 0, 8, 16, 24, 32, 40
        mov rcx, [rsp + \field]
        mov [rax + \field], rcx
    .endr
    mov rcx, cr2
    mov [rax + 48], rcx
    push USER_DATA
    mov rax, offset fault_stack_top
    push rax
    push RING3_FLAGS - 0x200            # interrupts off
    push USER_CODE
    mov rax, offset guest_fault
    push rax
    iretq

# `int3` from ring 3 with edi = 1 cpuid, 2 rdmsr, 3 wrmsr, 4 triple fault.
service:
    cmp edi, 1
    je 1f
    cmp edi, 2
    je 2f
    cmp edi, 3
    je 3f
    cmp edi, 4
    je triple_fault
    iretq
1:  cpuid
    iretq
2:  rdmsr
    iretq
3:  wrmsr
    iretq

triple_fault:
    lidt [rip + no_idt]
    ud2

# ------------------------------------------------------------------ further processors
# Copied to TRAMPOLINE; a processor woken by SIPI starts at its first byte in real mode and goes
# straight to long mode.
.section .data.trampoline, "aw"
.globl trampoline_start
.globl trampoline_end
trampoline_start:
.code16
    .byte 0xeb, 14                      # jump over the next 14 bytes
    .word 0
    .long pml4                          # + 4
    .word gdt_end - gdt - 1             # + 8
    .long gdt
    .word 0
    cli
    xor ax, ax
    mov ds, ax
    lgdtd [TRAMPOLINE + 8]
    mov eax, cr4
    or eax, 0x20                        # PAE
    mov cr4, eax
    mov eax, [TRAMPOLINE + 4]
    mov cr3, eax
    mov ecx, 0xc0000080                 # EFER
    rdmsr
    or eax, 0x100                       # LME
    wrmsr
    mov eax, 0x80000011
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump, 32-bit offset
    .long further_processor
    .word KERNEL_CODE
trampoline_end:

.section .text.further, "ax"
.code64
further_processor:
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ebx, 1
    mov rax, offset processors_started
    lock xadd [rax], ebx
    cmp ebx, CPUS
    jae 1f
    mov eax, ebx
    inc eax
    shl eax, 10                         # RING0_STACK
    mov rsp, offset ring0_stacks
    add rsp, rax
    mov r12, offset ring3_further
    mov eax, ebx
    shl eax, 14                         # ring-3 stacks of 16 KiB, one for each further processor
    mov r13, offset further_stacks
    add r13, rax
    mov r14d, ebx
    jmp to_ring3
1:  hlt
    jmp 1b

ring3_further:
    call guest_further
    ud2

# ------------------------------------------------------------------ ring-3 stacks
.section .bss.stacks, "aw", @nobits
.balign 4096
further_stacks:
    .skip (CPUS - 1) * 16384
    .skip 65536
ring3_stack_top:
    .skip 16384
fault_stack_top:
.text
